"""Every golden case (outputs of the reference implementations) through our functions and classes."""

import json
import math
import string
from pathlib import Path

import pytest
import torch

import tamp_lightning.metrics as tm
from tamp_lightning.metrics.labels import vocalsound_label
from tamp_lightning.metrics.mme import mme_yes_no
from tamp_lightning.metrics.vqa import normalize_evalai

CASES = json.loads((Path(__file__).parents[1] / "goldens" / "metrics.json").read_text())["cases"]


def run(metric, *batch):
    metric.update(torch.arange(len(batch[0])), *batch)
    return {name: value.item() for name, value in metric.compute().items()}


def numbers(letters):
    return torch.tensor([string.ascii_uppercase.index(letter) for letter in letters])


def column(rows, name):
    return [row[name] for row in rows]


def options_of(given):
    """Option texts of a case; rules that read letters only get texts that no reply contains."""
    if "choices" in given:
        return list(given["choices"].values())
    count = len(given.get("letters", "")) or given.get("num_choices", 5 if given.get("five") else 4)
    return given.get("options", [f"<{number}>" for number in range(count)])


def letter(case, given):
    number = tm.extractor(case["protocol"])(given["text"], options_of(given))
    return string.ascii_uppercase[number] if number >= 0 else ""


def one_choice(protocol, pred, target, options, fallback=-1):
    metric = tm.ChoiceAccuracy(1, tm.extractor(protocol), fallback=fallback)
    return run(metric, [pred], torch.tensor([target]), [options])["accuracy"]


def chosen(case, given):
    """The option a reply is scored as: the only target for which it is right (-1: none)."""
    protocol = case["protocol"]
    options = options_of({**given, "five": protocol == "videollama2_egoschema"})
    fallback = 2 if protocol.startswith("videollama2") else -1
    targets = range(len(options))
    right = [t for t in targets if one_choice(protocol, given["text"], t, options, fallback) == 1]
    assert len(right) <= 1
    return right[0] if right else -1


def answers(rows, rule, **settings):
    metric = tm.AnswerScore(len(rows), rule, **settings)
    return run(metric, column(rows, "pred"), column(rows, "answer"))["score"]


def named(name, target="target"):
    return lambda case, given: answers([{"pred": given["pred"], "answer": given[target]}], tm.scorer(name))


def mcq_score(case, given):
    if case["protocol"] == "first_single_letter":
        return named("first_single_letter")(case, given)
    target = given["target"]
    number = target if isinstance(target, int) else string.ascii_uppercase.index(target)
    return one_choice(case["protocol"], given["pred"], number, options_of(given))


def mcq_score_dataset(case, given):
    rows = given["rows"]
    if case["protocol"] == "mvbench":
        lettered = [{**row, "answer": "AB"[row["candidates"].index(row["answer"])]} for row in rows]
        return {"accuracy_percent": 100 * answers(lettered, tm.scorer("first_single_letter"), empty="skip")}
    metric = tm.ChoiceAccuracy(len(rows), tm.extractor("muirbench"), groups=column(rows, "task"))
    batch = column(rows, "pred"), numbers(column(rows, "target")), [["w", "x", "y", "z"]] * len(rows)
    return grouped(run(metric, *batch), "accuracy")


def grouped(result, name, overall="accuracy"):
    parts = {key.partition("/")[2]: value for key, value in result.items() if key.startswith(f"{name}/")}
    return {overall: result.get(name), "per_category": parts}


def yes_no(case, given):
    metric = tm.YesNo(len(given["preds"]), protocol=case["protocol"].removeprefix("pope_"))
    return run(metric, given["preds"], given["targets"])


def mme(case, given):
    rows = given["rows"]
    metric = tm.MMEScore(column(rows, "question_id"), column(rows, "category"))
    result = run(metric, column(rows, "pred"), column(rows, "target"))
    return result | grouped(result, "category")


def circular(case, given):
    rows = given["rows"]
    circles = [row["index"] % 10**6 for row in rows]
    metric = tm.CircularAccuracy(circles, tm.extractor(case["protocol"]), column(rows, "category"))
    options = [[row[key] for key in "ABCD" if key in row] for row in rows]
    batch = column(rows, "prediction"), numbers(column(rows, "answer")), options
    return grouped(run(metric, *batch), "circular", overall="overall")


def short_answer(case, given):
    rows = given["rows"]
    result = {"accuracy": answers(rows, tm.scorer("videollama2_short_answer"))}
    binary = [row for row in rows if row["answer"].lower() in ("yes", "no")]
    return result | {"binary_accuracy": answers(binary, tm.scorer("videollama2_same_text"))}


def likelihood(case, given):
    losses, gold = torch.tensor([given["losses"]]), int(given["gold"])

    def accuracy(normalize, lengths, target=gold):
        metric = tm.LikelihoodChoice(1, normalize)
        return run(metric, losses, torch.tensor([lengths]), torch.tensor([target]))["accuracy"]

    ones = [1] * losses.shape[1]
    if case["protocol"] == "egoschema_mcppl":
        picked = [target for target in range(losses.shape[1]) if accuracy("token", ones, target) == 1]
        return {"pred": picked[0], "score": accuracy("token", ones)}
    characters = [len(text) for text in given["choices"]]
    return {"acc": accuracy("token", ones), "acc_norm": accuracy("char", characters)}


def grouped_accuracy(case, given):
    rows = given["rows"]
    groups = {name: column(rows, name) for name in ("duration", "domain", "sub_category", "task_type")}
    unparsed = "skip" if case["protocol"] == "videomme_vlmevalkit" else "wrong"
    metric = tm.ChoiceAccuracy(len(rows), tm.extractor("videomme_official"), groups, unparsed=unparsed)
    batch = column(rows, "pred"), numbers(column(rows, "answer")), [["w", "x", "y", "z"]] * len(rows)
    result = run(metric, *batch)
    tree = {"overall": result["accuracy"], "overall_percent": 100 * result["accuracy"]}
    tree |= {name: result[f"accuracy/duration/{name}"] for name in ("short", "medium", "long")}
    return tree | {"domain": {name: result[f"accuracy/domain/{name}"] for name in set(groups["domain"])}}


def macro_average(case, given):
    rows = [{"pred": str(row["score"]), "answer": "", **row} for row in given["rows"]]
    groups = tm.interleave_categories(column(rows, "sub_task"))
    return answers(rows, lambda reply, _: float(reply), groups=groups, average="macro")


def wups(case, given):
    table = given["similarity"]
    rule = tm.wups(lambda a, b: table.get(f"{a}|{b}", table.get(f"{b}|{a}", 0.0)), given["alpha"])
    return answers([{"pred": given["pred"], "answer": given["target"]}], rule)


def fidelity(case, given):
    metric = tm.DenseFidelity()
    if case["metric"] == "answer_nll":
        logits = torch.tensor(given["logits"])
        metric.update(logits, logits, torch.tensor(given["target"]))
        nll = metric.compute()["nll_pruned"].item()
        return {"nll": nll, "perplexity": math.exp(nll)}
    dense, pruned = torch.tensor(given["dense_logits"]), torch.tensor(given["pruned_logits"])
    metric.update(dense, pruned, torch.zeros(len(dense), dtype=torch.int64))
    return metric.compute()["kl"].item()


def paired(case, given):
    keys = ("mean_diff", "se_diff", "ci_lower", "ci_upper", "t_stat", "p_value", "n")
    return dict(zip(keys, tm.paired_difference(given["current"], given["baseline"]), strict=True))


def flips(case, given):
    delta = tm.paired_difference(given["pruned"], given["dense"]).mean
    return {"flips": tm.flips(given["dense"], given["pruned"]), "accuracy_delta": delta}


def vqa_soft(case, given):
    return named("vqa_" + case["protocol"].removeprefix("vqa_"), target="answers")(case, given)


RUN = {
    "vqa_normalize": lambda case, given: normalize_evalai(given["text"]),
    "vqa_soft_accuracy": vqa_soft,
    "yes_no": yes_no,
    "yes_no_parse": lambda case, given: mme_yes_no(given["text"]),
    "mme": mme,
    "circular_mcq": circular,
    "mcq_infer": letter,
    "mcq_extract": letter,
    "mcq_extract_index": chosen,
    "mcq_score": mcq_score,
    "mcq_score_dataset": mcq_score_dataset,
    "open_answer": named("mmmu_open", target="answer"),
    "short_answer": short_answer,
    "label_containment": lambda case, given: {"accuracy": answers(given["rows"], tm.scorer(case["protocol"]))},
    "label_extract": lambda case, given: vocalsound_label(given["text"]),
    "exact_match": named("exact"),
    "anls": named("anls", target="answers"),
    "relaxed_accuracy": named("relaxed"),
    "loglikelihood_choice": likelihood,
    "grouped_accuracy": grouped_accuracy,
    "rouge_l": named("rouge_l"),
    "macro_average": macro_average,
    "wups": wups,
    "clustered_stderr": lambda case, given: tm.standard_error(given["scores"], given["clusters"]),
    "paired_difference": paired,
    "answer_nll": fidelity,
    "dense_kl": fidelity,
    "retention": lambda case, given: tm.retention(given["dense"], given["pruned"]),
    "flips": flips,
}


def check(found, expected, tolerance):
    if isinstance(expected, dict):
        for name, value in expected.items():
            check(found[name], value, tolerance)
    elif isinstance(expected, str):
        assert found == expected
    else:
        assert found == pytest.approx(expected, abs=tolerance, rel=0)


# Upstream an empty reply is right where people answered "the"; here an empty reply is wrong, whatever the rule.
EMPTY = "vqa_soft_accuracy/evalai/07"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_golden(case):
    if case["id"] == EMPTY:
        given = case["input"]
        assert tm.scorer("vqa_evalai")(given["pred"], given["answers"]) == case["expected"]
        assert answers([{"pred": given["pred"], "answer": given["answers"]}], tm.scorer("vqa_evalai")) == 0
        return
    check(RUN[case["metric"]](case, case["input"]), case["expected"], case["tol"])


def test_all_cases_are_run():
    assert len({case["id"] for case in CASES}) == len(CASES) == 152
    assert {case["metric"] for case in CASES} == set(RUN)

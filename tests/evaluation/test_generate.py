"""Generation and likelihood: batches, resuming, bad media, lengths."""

import json

import pytest
import torch
from transformers import LlavaNextForConditionalGeneration

from tamp_lightning.benchmarks.registry import BENCHMARKS, question_alone
from tamp_lightning.data import easy_vqa
from tamp_lightning.data.media import BadMedia, read_picture
from tamp_lightning.data.packing import conversation
from tamp_lightning.data.readers.item import Source
from tamp_lightning.evaluation.likelihood import check_likelihood
from tamp_lightning.evaluation.records import Record
from tamp_lightning.evaluation.store import Store
from tamp_lightning.testbeds import easy_vqa_layouts

from ..fixtures.layouts import LAYOUTS


@pytest.fixture(scope="module")
def easy(tmp_path_factory):
    """easy-VQA in the public layout of a benchmark, cut to a few questions."""
    pytest.importorskip("easy_vqa")

    def read(name, limit=5):
        source = easy_vqa_layouts.write(name, tmp_path_factory.getbasetemp() / "easy")
        return BENCHMARKS[name].read(Source(source.path, media=source.media, limit=limit))

    return read


def replies(store):
    return {n: record.reply for n, record in store.records().items()}


@pytest.mark.parametrize("name", ["pope", "mmbench", "vqav2"])
def test_batches_padded_on_the_left_give_the_replies_of_single_questions(name, easy, run, tmp_path):
    items = easy(name, 4)
    together = [
        replies(run(BENCHMARKS[name], items, tmp_path / str(n), batch_size=n, new_tokens=8)[1]) for n in (1, 3, 16)
    ]
    assert together[0] == together[1] == together[2]
    assert len(set(together[0].values())) > 1


def test_a_reply_is_what_the_model_says_next(easy, run, bed, processor):
    items = easy("pope", 1)
    _, store = run(BENCHMARKS["pope"], items, new_tokens=1)
    chat = conversation(BENCHMARKS["pope"].prompt(items.items[0]), "")[:1]
    text = processor.apply_chat_template(chat, add_generation_prompt=True)
    picture = read_picture(items.items[0].media[0].content)
    inputs = processor(text=[text], images=[picture], return_tensors="pt")
    with torch.no_grad():
        best = bed(**inputs).logits[0, -1].argmax()
    assert replies(store)[0] == processor.tokenizer.decode(best, skip_special_tokens=True).strip()


def nll_alone(bed, processor, item, prompt, answer):
    """Sum over the tokens of an answer and its end mark, the question asked alone."""
    chat = conversation(prompt, answer)
    picture = read_picture(item.media[0].content)
    start, whole = (
        processor(
            text=[processor.apply_chat_template(c, add_generation_prompt=g)], images=[picture], return_tensors="pt"
        )
        for c, g in ((chat[:1], True), (chat, False))
    )
    ids, first = whole["input_ids"][0], start["input_ids"].shape[1]
    end = first + int((ids[first:] == processor.tokenizer.eos_token_id).long().argmax()) + 1
    with torch.no_grad():
        log_probs = bed(**whole).logits[0].log_softmax(-1)
    return -log_probs[torch.arange(first - 1, end - 1), ids[first:end]].sum().item(), end - first


@pytest.mark.parametrize("alone", [False, True])
def test_likelihood_is_that_of_each_candidate_alone(alone, easy, run, bed, processor):
    benchmark = question_alone(BENCHMARKS["pope"]) if alone else BENCHMARKS["pope"]
    items = easy("pope", 4)
    answers, store = run(benchmark, items, likelihood=True)
    for position, record in store.records().items():
        item = items.items[position]
        continuations = (benchmark.continuations or benchmark.candidates)(item)
        expected = [nll_alone(bed, processor, item, benchmark.prompt(item), words) for words in continuations]
        assert record.nll == pytest.approx([nll for nll, _ in expected], rel=1e-4)
        assert list(record.lengths) == [length for _, length in expected]
        means = [nll / length for nll, length in zip(record.nll, record.lengths, strict=True)]
        assert record.reply == benchmark.candidates(item)[means.index(min(means))]
    assert answers.results["unparsed"] == 0
    right = [benchmark.answer_index(items.items[n]) for n in sorted(store.records())]
    margins = [
        record.nll[1 - k] / record.lengths[1 - k] - record.nll[k] / record.lengths[k]
        for k, (_, record) in zip(right, sorted(store.records().items()), strict=True)
    ]
    assert answers.results["margin"] == pytest.approx(sum(margins) / len(margins), abs=1e-5)


def test_options_texts_do_not_depend_on_their_rotation(easy, run):
    items = easy("mmbench", 3)
    answers, store = run(question_alone(BENCHMARKS["mmbench"]), items, likelihood=True)
    assert answers.results["circular"] == answers.results["vanilla"] == answers.results["accuracy"]
    by_circle = {}
    for position, record in store.records().items():
        by_circle.setdefault(items.items[position].circle, []).append(sorted(record.nll))
    assert all(nll == pytest.approx(rows[0], rel=1e-4) for rows in by_circle.values() for nll in rows)


REFUSED = {
    "textvqa hub": "textvqa has no closed set of answers to score by likelihood: use answers: generate",
    "muirbench hub": "muirbench has questions without exactly one picture",
}


@pytest.mark.parametrize(("layout", "message"), REFUSED.items())
def test_likelihood_is_refused_where_it_means_nothing(layout, message, tmp_path, processor):
    name, write = LAYOUTS[layout]
    with pytest.raises(ValueError, match=message):
        check_likelihood(BENCHMARKS[name], BENCHMARKS[name].read(write(tmp_path)), processor)


def test_a_killed_run_goes_on_where_it_was(easy, run, tmp_path, monkeypatch):
    benchmark, items = BENCHMARKS["pope"], easy("pope", 7)
    whole, complete = run(benchmark, items, tmp_path / "whole", batch_size=2)
    asked = []
    generate = LlavaNextForConditionalGeneration.generate

    def dying(self, *args, **kwargs):
        asked.append(len(kwargs["input_ids"]))
        if len(asked) == 3:
            raise RuntimeError("killed")
        return generate(self, *args, **kwargs)

    monkeypatch.setattr(LlavaNextForConditionalGeneration, "generate", dying)
    with pytest.raises(RuntimeError, match="killed"):
        run(benchmark, items, tmp_path / "torn", batch_size=2)
    part = next((tmp_path / "torn").rglob("part-0.jsonl"))
    assert len(part.read_text().splitlines()) == 4
    part.write_text(part.read_text()[:-9])  # and the last line is cut off
    asked[:] = [0, 0, 0]
    again, store = run(benchmark, items, tmp_path / "torn", batch_size=2)
    assert asked[3:] == [2, 2, 1]  # the batches of an unbroken run
    assert replies(store) == replies(complete)
    assert again.results == whole.results
    assert again.values == whole.values


def test_all_answered_but_not_scored_asks_nothing(easy, run, monkeypatch):
    benchmark, items = BENCHMARKS["pope"], easy("pope", 3)
    first, _ = run(benchmark, items)
    monkeypatch.setattr(LlavaNextForConditionalGeneration, "generate", None)
    assert run(benchmark, items)[0].results == first.results


def broken_picture(folder):
    source = LAYOUTS["pope jsonl"][1](folder)
    (folder / "val2014" / "COCO_val2014_000000000000.jpg").write_bytes(b"\xff\xd8 not really")
    rows = [json.loads(line) for line in (folder / "coco_pope_random.json").read_text().splitlines()]
    good = easy_vqa.root() / "test" / "images" / "0.png"
    (folder / "coco_pope_random.json").write_text("".join(json.dumps({**r, "image": str(good)}) + "\n" for r in rows))
    return source


def test_an_unreadable_picture_names_its_row(tmp_path, run):
    pytest.importorskip("easy_vqa")
    items = BENCHMARKS["pope"].read(broken_picture(tmp_path))
    with pytest.raises(BadMedia, match=r"coco_pope_adversarial\.json line 1: cannot read picture .*0000\.jpg") as error:
        run(BENCHMARKS["pope"], items)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("likelihood", [False, True])
def test_unreadable_pictures_are_left_out_and_counted(likelihood, tmp_path, run):
    pytest.importorskip("easy_vqa")
    items = BENCHMARKS["pope"].read(broken_picture(tmp_path))
    answers, store = run(BENCHMARKS["pope"], items, skip_bad=True, likelihood=likelihood, batch_size=3)
    bad = [record for record in store.records().values() if record.bad]
    assert len(bad) == 4
    assert all("cannot read picture" in record.bad for record in bad)
    assert answers.results["coverage"] == pytest.approx(2 / 6)
    assert sum(value == value for value in answers.values) == 2


def test_a_prompt_too_long_for_the_model_is_refused(easy, run):
    items = easy("pope", 1)
    with pytest.raises(ValueError, match=r"line 1: \d+ tokens with media and 9999 to generate are more than .* 2048"):
        run(BENCHMARKS["pope"], items, new_tokens=9999)


def test_other_inputs_have_another_folder(tmp_path):
    first, same, other = (Store(tmp_path, "pope", {"a": 1, "b": b}) for b in (2, 2, 3))
    assert first.folder == same.folder != other.folder
    assert Store(tmp_path, "mme", {"a": 1, "b": 2}).folder.name.startswith("mme-")


def test_records_survive_the_way_to_disk(tmp_path):
    store = Store(tmp_path, "pope", {})
    store.start()
    records = [Record(0, "a", "é\n", None, (1.5, 2.0), (1, 2)), Record(1, "b", bad="gone")]
    store.append(0, records[:1], {})
    store.append(1, records[1:], {})
    assert list(store.records().values()) == records

"""Clips as four benchmarks: packed options score as each option on its own; controls take away what they say."""

import copy
from collections import Counter

import pytest
import torch

from tamp_lightning.data.calibration import CalibrationData
from tamp_lightning.data.packing import conversation
from tamp_lightning.evaluation.layerwise import LayerwiseScores
from tamp_lightning.evaluation.scoring import score
from tamp_lightning.evaluation.summary import prediction_rows, summarise, write_predictions
from tamp_lightning.methods.method import Method
from tamp_lightning.passes.trainer import prune_stream, scoring_trainer
from tamp_lightning.stream import MemoryStream
from tamp_lightning.testbeds import clip_suite as clips
from tamp_lightning.testbeds.clip_samples import clip_file, clip_pool
from tamp_lightning.testbeds.clip_suite import ClipSuite
from tamp_lightning.testbeds.clips import CATEGORIES
from tamp_lightning.testbeds.suites import build_suite

from ..fixtures.clips import tiny_bed

pytest.importorskip("av")
SHOWN = ("own", "shuffled", "muted", "blank")


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TAMP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def tiny():
    return tiny_bed()


def few(processor, shown="own", every=7):
    """A suite of some of the quick slice's clips, of all lengths and kinds."""
    suite = ClipSuite(processor, "test", "quick", shown)
    suite.groups, suite.clips = suite.groups[::every], suite.clips[::every]
    kept = [i for group in suite.groups for i in group]
    place = {old: new for new, old in enumerate(kept)}
    suite.items = [suite.items[i] for i in kept]
    suite.groups = [[place[i] for i in group] for group in suite.groups]
    suite._stand_in = {k: (k + 1) % len(suite.clips) for k in range(len(suite.clips))}
    return suite


def scored(model, suite, dense=None, size=3):
    return score(
        model, suite, scoring_trainer(accelerator="cpu", enable_progress_bar=False), batch_size=size, dense=dense
    )


@torch.no_grad()
def alone(model, processor, question, option):
    """Log-probabilities [tokens,vocab] before an option's tokens and its end mark, and those tokens."""
    chat = conversation(question.text, option, "video")
    file = str(clip_file(question.clip))
    texts = [processor.apply_chat_template(chat[:1], add_generation_prompt=True), processor.apply_chat_template(chat)]
    prompt, whole = (processor(text, videos=[file]) for text in texts)
    start, words = prompt["input_ids"].shape[1], processor.tokenizer(f"{option}<|im_end|>")["input_ids"]
    assert whole["input_ids"][0, start : start + len(words)].tolist() == words
    logits = model(**whole).logits[0].log_softmax(-1)
    return logits[start - 1 : start - 1 + len(words)], torch.tensor(words)


def test_answers_are_the_likeliest_options_one_by_one(tiny):
    model, processor = tiny
    suite = few(processor, every=13)
    scores = scored(model, suite)
    hits = {name: [] for name in CATEGORIES}
    for position, q in enumerate(suite.items):
        parts = [alone(model, processor, q, option) for option in q.options]
        sums = [float(rows.gather(1, words[:, None]).sum()) for rows, words in parts]
        said = q.options[sums.index(max(sums))]
        assert scores.predictions[position] == said
        hits[q.category].append(said == q.answer)
    for name, right in hits.items():
        if right:
            assert scores.results[name]["score"] == pytest.approx(sum(right) / len(right))


def test_distance_is_taken_over_right_answers_alone(tiny):
    model, processor = tiny
    other, _ = tiny_bed()
    with torch.no_grad():
        for block in other.get_decoder().layers:
            block.mlp.down_proj.weight.mul_(torch.rand(block.mlp.down_proj.weight.shape) > 0.5)
    suite = few(processor, every=13)
    dense = scored(model, suite)
    after = scored(other, suite, dense)
    kl = []
    for q in suite.items:
        (p, _), (r, _) = (alone(m, processor, q, q.answer) for m in (model, other))
        kl += (p.exp() * (p - r)).sum(-1).tolist()
    assert after.results["fidelity"]["kl"] == pytest.approx(sum(kl) / len(kl), rel=1e-3)
    assert after.results["fidelity"]["kl"] > 1e-3


def test_batch_size_changes_no_answer_and_predictions_have_a_row_each(tiny, tmp_path):
    import pyarrow.parquet as pq

    model, processor = tiny
    suite = few(processor)
    first, second = scored(model, suite, size=1), scored(model, suite, size=8)
    assert first.predictions == second.predictions
    again = scored(model, suite, first, size=1)
    summary = summarise([suite], [first], [again])
    assert summary["flips"] == 0
    assert set(summary["benchmarks"]) == set(CATEGORIES)
    write_predictions(tmp_path / "p.parquet", prediction_rows(suite, {"dense": first, "pruned": again}))
    rows = pq.read_table(tmp_path / "p.parquet").to_pylist()
    assert [(row["question"], row["answer"]) for row in rows] == [(q.text, q.answer) for q in suite.items]
    assert all(row["dense"] in row["options"] for row in rows)


def test_a_guess_without_the_clip_is_right_once_in_four(tiny):
    suite = ClipSuite(tiny[1], "selection", "quick")
    assert suite.chance() == dict.fromkeys(CATEGORIES, 0.25)
    assert len(suite.items) == 264
    lengths = Counter(q.clip.length for q in suite.items)
    assert set(lengths.values()) == {88}


def test_controls_take_away_what_they_say(tiny):
    processor = tiny[1]
    own, shuffled, muted, blank = (few(processor, shown)[2][0].pixels for shown in SHOWN)
    assert torch.equal(own["pixel_values_videos"], muted["pixel_values_videos"])
    assert torch.equal(own["input_features"], blank["input_features"])
    assert len(muted["input_features"].unique()) == 1
    assert blank["pixel_values_videos"].unique().tolist() == pytest.approx([128 / 127.5 - 1], rel=1e-4)
    assert not torch.equal(own["input_features"], shuffled["input_features"])
    assert not torch.equal(own["pixel_values_videos"], shuffled["pixel_values_videos"])


def test_suites_refuse_a_checkpoint_they_are_not_made_for(tiny, processor):
    with pytest.raises(
        ValueError, match="clips needs a checkpoint with a Videollama2Processor, this one has LlavaNext"
    ):
        build_suite("clips", processor, "test", "quick")
    with pytest.raises(ValueError, match="easy_vqa needs a checkpoint with a LlavaNextProcessor"):
        build_suite("easy_vqa", tiny[1], "test", "quick")
    with pytest.raises(ValueError, match="controls has 'muted', easy_vqa has shuffled, blank"):
        build_suite("easy_vqa", processor, "test", "quick", "muted")
    assert build_suite("none", processor, "test", "quick") is None
    assert isinstance(build_suite("clips", tiny[1], "test", "quick"), clips.ClipSuite)


def test_clips_that_ride_along_score_as_they_do_on_whole_models(tiny):
    model, processor = tiny
    suite, pruned = few(processor, every=13), copy.deepcopy(model)
    layerwise = LayerwiseScores([suite], 3)
    data = CalibrationData.from_samples(clip_pool(42, 2).draw(4, 42), processor, 2)
    method = Method(tokens="all", allocation="uniform")
    prune_stream(MemoryStream(pruned), data, method, progress=False, layerwise=layerwise, accelerator="cpu")
    before = scored(model, suite)
    after = scored(pruned, suite, before)
    for found, expected in zip((d for [d] in layerwise.scores()), (before, after), strict=True):
        assert found.results == expected.results
        assert found.predictions == expected.predictions
        assert found.certainty == expected.certainty
        assert found.divergence == expected.divergence
    assert after.results["fidelity"]["kl"] > 0

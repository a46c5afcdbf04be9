"""Generation and likelihood: batches, resuming, bad media, lengths."""

import json

import pytest
import torch
from transformers import LlavaNextForConditionalGeneration

from tamp_lightning.benchmarks.registry import BENCHMARKS
from tamp_lightning.data import easy_vqa
from tamp_lightning.data.media import BadMedia, read_picture
from tamp_lightning.data.packing import conversation
from tamp_lightning.evaluation.store import Store

from ..fixtures.layouts import LAYOUTS


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

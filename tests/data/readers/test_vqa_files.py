"""Questions and annotations in two files."""

import pytest

from tamp_lightning.benchmarks.registry import BENCHMARKS
from tamp_lightning.data.readers.item import Source

from ...fixtures import layouts, media


def official(folder, prefix, split, answer, *, text_ids=False, annotated=True):
    """One question of a benchmark and split, in the names of its official files."""
    ask = {"image_id": 0, "question": f"{prefix}{split}?", "question_id": "7" if text_ids else 7}
    layouts.write_json(folder / f"{prefix}OpenEnded_mscoco_{split}2014_questions.json", {"questions": [ask]})
    note = {"question_id": 7, "image_id": 0, "answers": [{"answer": answer}] * 10}
    if annotated:
        layouts.write_json(folder / f"{prefix}mscoco_{split}2014_annotations.json", {"annotations": [note]})
    media.save_picture(folder / "val2014" / "COCO_val2014_000000000000.jpg")


@pytest.mark.parametrize("name", ["ok_vqa", "vqav2"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_both_benchmarks_and_both_splits_may_lie_in_one_folder(name, split, tmp_path):
    for prefix in ("", "v2_"):
        for part in ("train", "val"):
            official(tmp_path, prefix, part, f"{prefix}{part}")
    prefix = "v2_" if name == "vqav2" else ""
    items = BENCHMARKS[name].read(Source(path=str(tmp_path), split=split))
    assert [(i.question, i.target[0]) for i in items.items] == [(f"{prefix}{split}?", f"{prefix}{split}")]
    files = (f"{prefix}OpenEnded_mscoco_{split}2014_questions.json", f"{prefix}mscoco_{split}2014_annotations.json")
    assert items.notes == (f"read {files[0]} and {files[1]}",)


def test_what_cannot_be_told_apart_is_refused(tmp_path):
    official(tmp_path, "", "val", "a")
    layouts.write_json(tmp_path / "old_OpenEnded_mscoco_val2014_questions.json", {"questions": []})
    with pytest.raises(ValueError, match=r"several files of questions: Open.*, old_Open.*; keep one, or give a split"):
        BENCHMARKS["ok_vqa"].read(Source(path=str(tmp_path)))
    with pytest.raises(ValueError, match=r"holds no questions of split train, but Open.*give the split|data\.<bench"):
        BENCHMARKS["ok_vqa"].read(Source(path=str(tmp_path), split="train"))
    only = tmp_path / "only"
    official(only, "v2_", "val", "a")
    with pytest.raises(ValueError, match=r"holds VQAv2's questions alone"):
        BENCHMARKS["ok_vqa"].read(Source(path=str(only), split="val2014"))
    official(tmp_path / "half", "", "val", "a", annotated=False)
    with pytest.raises(ValueError, match=r"without its file of annotations"):
        BENCHMARKS["ok_vqa"].read(Source(path=str(tmp_path / "half"), split="val2014"))


def test_ids_meet_as_text_and_as_numbers(tmp_path):
    official(tmp_path, "", "val", "red", text_ids=True)
    items = BENCHMARKS["ok_vqa"].read(Source(path=str(tmp_path)))
    assert [(i.id, i.target[0]) for i in items.items] == [("7", "red")]

"""POPE and MME as people have them."""

from dataclasses import replace

from ...fixtures import layouts
from ...fixtures.layouts import prepared, read, summary


def test_the_folder_of_pope_also_holds_files_of_objects(tmp_path):
    benchmark, source = prepared("pope jsonl", tmp_path)
    plain = summary(benchmark.read(source))
    layouts.write_json(tmp_path / "coco_co_occur.json", {"person": ["chair", "cup"]})
    layouts.write_lines(tmp_path / "coco_ground_truth_objects.json", [{"image": "a.jpg", "objects": ["cup"]}])
    assert summary(benchmark.read(source)) == plain
    own = tmp_path / "own" / "mine.json"
    layouts.write_lines(own, [{"question_id": 1, "image": "COCO_val2014_000000000000.jpg", "text": "?", "label": "no"}])
    layouts.write_json(own.parent / "objects.json", {"person": []})
    assert len(benchmark.read(replace(source, path=str(own.parent)))) == 1


def test_pictures_of_mme_may_have_any_name(tmp_path):
    benchmark, source = prepared("mme folder", tmp_path)
    for old in (tmp_path / "color").iterdir():
        old.rename(old.with_name(f"a[1] *{old.suffix}"))
    assert [i.circle for i in benchmark.read(source).items][2:] == ["color/a[1] *.jpg"] * 2


def test_pairs_of_mme_share_a_circle(tmp_path):
    items = read("mme folder", tmp_path).items
    assert [item.circle for item in items] == ["celebrity/0001.jpg"] * 2 + ["color/0001.jpg"] * 2
    assert items[0].question == "Is it red?"

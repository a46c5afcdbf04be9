"""Every layout through the real pipeline: reader, prompt, processor, generation, metric, predictions on disk."""

from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from tamp_lightning.benchmarks.base import update
from tamp_lightning.benchmarks.registry import BENCHMARKS
from tamp_lightning.data.media import BadMedia
from tamp_lightning.evaluation.examples import Examples, accepts, check_accepts
from tamp_lightning.evaluation.generate import GenerationTask
from tamp_lightning.evaluation.items import GenerationOptions
from tamp_lightning.evaluation.scoring import score_again
from tamp_lightning.evaluation.summary import prediction_rows, write_predictions

from ..fixtures.layouts import LAYOUTS, SOUND, VIDEO

SEEN = [layout for layout, (name, _) in LAYOUTS.items() if name not in SOUND]


def read(layout, folder, **changes):
    name, write = LAYOUTS[layout]
    if name in (*SOUND, *VIDEO):
        pytest.importorskip("av")
    return BENCHMARKS[name], BENCHMARKS[name].read(replace(write(folder), **changes))


def perfect_reply(benchmark, item):
    if benchmark.candidates and benchmark.answer_index:
        return benchmark.candidates(item)[benchmark.answer_index(item)]
    if isinstance(item.target, int):
        return "ABCDE"[item.target]
    return item.target if isinstance(item.target, str) else item.target[0]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_right_replies_score_full_and_empty_ones_nothing(layout, tmp_path):
    benchmark, items = read(layout, tmp_path)
    positions = list(range(len(items)))
    best = {"perception": 200.0 * len({i.groups.get("category") for i in items.items})}.get(benchmark.headline, 1.0)
    if layout == "mme folder":
        best = 400.0
    for replies, expected in (
        ([perfect_reply(benchmark, item) for item in items.items], best),
        (
            ["Zzz." for _ in positions],
            sum(i.target == "yes" for i in items.items) / len(items) * (benchmark.name == "pope"),
        ),
    ):
        metric = benchmark.metric(items.items)
        update(metric, positions, replies, items.items)
        found = {name: float(value) for name, value in metric.compute().items()}
        assert found[benchmark.headline] == pytest.approx(expected)
        assert found["coverage"] == 1
        if "unparsed" in found:
            assert found["unparsed"] == (replies[0] == "Zzz.")


@pytest.mark.parametrize("layout", SEEN)
def test_a_model_answers_every_question(layout, tmp_path, run, processor):
    benchmark, items = read(layout, tmp_path)
    answers, store = run(benchmark, items)
    task = GenerationTask(benchmark, items, processor, GenerationOptions())
    assert answers.results["coverage"] == 1
    assert 0 <= answers.results[benchmark.headline] <= 2000
    records = store.records()
    assert sorted(records) == list(range(len(items)))
    assert {record.id for record in records.values()} == {item.id for item in items.items}
    store.finish(1.0)
    assert store.records() == records
    scores = score_again(task, store)
    assert scores.results[benchmark.name] == answers.results
    write_predictions(tmp_path / "predictions.parquet", prediction_rows(task, {"": scores}))
    rows = pq.read_table(tmp_path / "predictions.parquet").to_pylist()
    assert [row["prompt"] for row in rows] == [benchmark.prompt(item) for item in items.items]
    assert [row["score"] for row in rows] == pytest.approx(answers.values)
    assert all(row["answer"] for row in rows)
    assert 0 <= task.chance()[benchmark.name] < 1
    assert not list(store.folder.glob("part-*"))


class Sees:
    """What `Examples` asks of a processor: which media it takes."""

    def __init__(self, *parts):
        for part in parts:
            setattr(self, part, self)
        self.sampling_rate = 16000


def example(layout, folder, *parts, **options):
    benchmark, items = read(layout, folder)
    return Examples(benchmark, items, range(len(items)), Sees(*parts), frames=3, **options)[0]


def kinds(example):
    return [part["type"] for part in example.messages[0]["content"]]


def test_a_video_is_frames_for_processors_that_take_videos(tmp_path):
    found = example("videomme", tmp_path, "video_processor")
    assert kinds(found) == ["video", "text"]
    assert found.videos[0].shape == (3, 32, 32, 3)
    assert not found.images


def test_a_video_can_be_shown_as_pictures(tmp_path):
    found = example("videomme", tmp_path, "image_processor", frames_as_pictures=True)
    assert kinds(found) == ["image", "image", "image", "text"]
    assert len(found.images) == 3


def test_subtitles_stand_in_front_of_the_question(tmp_path):
    text = example("videomme subtitles", tmp_path, "video_processor").messages[0]["content"][1]["text"]
    head = "This video's subtitles are listed below:\nIt is red indeed\nand now blue\nSelect the best answer"
    assert text.startswith(head)


def test_sound_of_a_video_goes_to_processors_that_take_it(tmp_path):
    both = example("music_avqa json", tmp_path, "video_processor", "feature_extractor")
    assert kinds(both) == ["video", "audio", "text"]
    assert len(both.sounds[0]) > 40000
    assert kinds(example("music_avqa json", tmp_path, "video_processor")) == ["video", "text"]


@pytest.mark.parametrize("layout", ["clothoaqa json", "clothoaqa hub", "vocalsound jsonl", "tut2017 jsonl"])
def test_sounds_go_to_processors_that_take_them(layout, tmp_path):
    found = example(layout, tmp_path, "feature_extractor")
    assert kinds(found) == ["audio", "text"]
    assert len(found.sounds[0]) == pytest.approx(16000, rel=0.01)


def test_pictures_stand_where_the_text_names_them(tmp_path):
    benchmark, items = read("muirbench hub", tmp_path)
    examples = Examples(benchmark, items, [0, 1], Sees("image_processor"))
    assert kinds(examples[0]) == ["text", "image", "text", "image", "text"]
    assert examples[0].messages[0]["content"][2]["text"] == " and "
    wrong = replace(items, items=[replace(items.items[0], media=items.items[0].media[:1])])
    with pytest.raises(BadMedia, match="the text has 2 <image> for 1 pictures"):
        _ = Examples(benchmark, wrong, [0], Sees("image_processor"))[0]


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ("videomme", r"videomme asks about video, which LlavaNextProcessor does not take: frames_as_pictures: true"),
        ("clothoaqa json", r"clothoaqa asks about audio, which LlavaNextProcessor does not take: choose another model"),
    ],
)
def test_media_a_model_does_not_take_are_refused(layout, message, tmp_path, processor):
    benchmark, items = read(layout, tmp_path)
    with pytest.raises(ValueError, match=message):
        check_accepts(benchmark, items, processor, frames_as_pictures=False)


def test_frames_as_pictures_are_taken(tmp_path, processor):
    benchmark, items = read("videomme", tmp_path)
    check_accepts(benchmark, items, processor, frames_as_pictures=True)
    assert [accepts(processor, kind) for kind in ("image", "video", "audio")] == [True, False, False]

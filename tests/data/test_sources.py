"""Where calibration samples come from."""

from types import SimpleNamespace

import datasets
import pytest
import torch
from datasets import Dataset, Features, Image, Value
from datasets import List as ListOf
from datasets.packaged_modules.parquet.parquet import Parquet

from tamp_lightning import prune
from tamp_lightning.data import chat_files, easy_vqa, sources
from tamp_lightning.data.calibration import CalibrationData, Collator
from tamp_lightning.models.videollama2 import Videollama2Processor

from ..fixtures.media import save_clip, save_sound
from ..models.videollama2.conftest import SECONDS, assemble, make_tokenizer, tiny_config
from .conftest import llava_file, paint


@pytest.fixture(autouse=True)
def no_nap(monkeypatch):
    """Newer `datasets` waits five seconds after a stream ends early, for its threads."""
    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0.05, raising=False)


TURN = {"from": Value("string"), "value": Value("string")}


def number_of(sample):
    return sample.images[0].getpixel((0, 0))[0]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Three shards of 40 rows; of every two rows the first is sharegpt4v; row n shows the colour n."""
    folder = tmp_path_factory.mktemp("llava_next")
    features = Features({
        "id": Value("string"), "image": Image(), "conversations": ListOf(TURN), "data_source": Value("string")
    })  # fmt: skip
    for shard in range(3):
        rows = [
            {
                "id": str(n),
                "image": paint(n),
                "conversations": [
                    {"from": "human", "value": f"<image>\nwhat is {n}?"},
                    {"from": "gpt", "value": f"it is {n}"},
                ],
                "data_source": "other" if n % 2 else "sharegpt4v",
            }
            for n in range(40 * shard, 40 * shard + 40)
        ]
        (folder / "data").mkdir(exist_ok=True)
        Dataset.from_list(rows, features=features).to_parquet(folder / "data" / f"train-{shard}.parquet", batch_size=5)
    return folder


def numbers(data):
    return [number_of(data[k]) for k in range(len(data))]


def test_llava_next_data_takes_its_subset_seeded(shards):
    first, again, other = (sources.from_llava_next_data(str(shards), "sharegpt4v", 20, seed) for seed in (0, 0, 1))
    assert numbers(first) == numbers(again)
    assert numbers(first) != numbers(other)
    assert len(set(numbers(first))) == len(first) == 20
    assert all(n % 2 == 0 for n in numbers(first))
    assert {n // 40 for n in numbers(first)} == {0, 1, 2}
    for k in range(2):
        n = number_of(first[k])
        assert first[k].id == k
        assert first[k].messages == [
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": f"what is {n}?"}]},
            {"role": "assistant", "content": [{"type": "text", "text": f"it is {n}"}]},
        ]


def test_llava_next_data_without_subset_takes_all(shards):
    data = sources.from_llava_next_data(str(shards), None, 120, 0)
    assert sorted(numbers(data)) == list(range(120))
    with pytest.raises(ValueError, match=r"61 calibration samples wanted, .* has 60 of data_source 'sharegpt4v'"):
        sources.from_llava_next_data(str(shards), "sharegpt4v", 61, 0)
    with pytest.raises(ValueError, match=r"2 calibration samples wanted, .* has 0 of data_source 'typo'"):
        sources.from_llava_next_data(str(shards), "typo", 2, 0)


def test_llava_next_data_reads_no_more_than_the_buffer_needs(shards, monkeypatch):
    read, decoded = [], []
    cast, decode = Parquet._cast_table, sources.read_picture
    monkeypatch.setattr(Parquet, "_cast_table", lambda self, table: read.append(len(table)) or cast(self, table))
    monkeypatch.setattr(sources, "read_picture", lambda content: decoded.append(1) or decode(content))
    sources.from_llava_next_data(str(shards), "sharegpt4v", 3, 0, buffer=2)
    assert 6 <= sum(read) <= 30  # of 60 rows; batches of up to five, some ahead
    assert 3 <= len(decoded) <= 12
    read.clear()
    sources.from_llava_next_data(str(shards), "sharegpt4v", 60, 0, buffer=2)
    assert sum(read) == 60


@pytest.mark.parametrize("name", ["calibration.json", "calibration.jsonl"])
def test_llava_json_with_one_none_and_several_pictures(tmp_path, rows, name):
    data = sources.from_llava_json(llava_file(tmp_path, rows, name), tmp_path / "media", 4, 0)
    assert [sample.id for sample in data] == [0, 1, 2, 3]
    assert [len(sample.images) for sample in data] == [1, 0, 2, 1]
    assert all(image.mode == "RGB" for sample in data for image in sample.images)
    assert [image.getpixel((0, 0))[0] for image in data[2].images] == [2, 3]
    assert data[1].messages[0] == {"role": "system", "content": [{"type": "text", "text": "be kind"}]}
    assert data[2].messages[0]["content"] == [
        {"type": "image"}, {"type": "text", "text": "or "}, {"type": "image"}, {"type": "text", "text": "?"}
    ]  # fmt: skip
    assert data[3].messages[0]["content"][-1]["text"] == "see"


def test_llava_json_finds_pictures_beside_it_and_draws_by_seed(tmp_path, rows):
    path = llava_file(tmp_path / "media", [rows[k] for k in (0, 1, 2, 3)] * 5)
    drawn = [[sources.from_llava_json(path, None, 6, seed)[k].id for k in range(6)] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert all(ids == sorted(set(ids)) for ids in drawn)


def test_easy_vqa_conversations_show_one_picture_and_ask_its_own_questions():
    data, again, other = (sources.easy_vqa_pool(seed, 3).draw(5, seed) for seed in (0, 0, 1))
    assert [s.id for s in data] == [s.id for s in again] != [s.id for s in other]
    assert [s.messages for s in data] == [s.messages for s in again]
    own = easy_vqa.by_picture(easy_vqa.questions("calibration"))
    for sample in data:
        turns = sample.messages
        assert len(turns) == 6
        assert [part["type"] for turn in turns for part in turn["content"]] == ["image", *["text"] * 6]
        asked = {(turns[k]["content"][-1]["text"], turns[k + 1]["content"][0]["text"]) for k in (0, 2, 4)}
        assert len(asked) <= 3
        assert asked <= {(q.text, q.answer) for q in own[sample.id]}
        assert sample.images[0].tobytes() == easy_vqa.load_picture("calibration", sample.id).tobytes()


ANSWER = {"from": "gpt", "value": "a flute"}


def asked(value, **media):
    return {**media, "conversations": [{"from": "human", "value": value}, ANSWER]}


@pytest.fixture
def films(tmp_path):
    """A folder with a clip that has sound, one that has none, a sound and a picture."""
    pytest.importorskip("av")
    folder = tmp_path / "films"
    save_clip(folder / "loud.mp4", sound=True)
    save_clip(folder / "mute.mp4")
    save_sound(folder / "tone.wav")
    paint(9).save(folder / "9.png")
    return folder


@pytest.fixture
def hearing():
    """VideoLLaMA2's processor, sized for its tiny checkpoint."""
    return Videollama2Processor(make_tokenizer(), **Videollama2Processor.sizes(tiny_config(), SECONDS))


def runs(batch, row):
    """Kinds of a row's tokens, each with how many follow one another: 0 text, 1 image, 2 video, 3 audio."""
    kinds, counts = torch.unique_consecutive(batch["mm_token_type_ids"][row][batch["valid"][row]], return_counts=True)
    return [(kind, count) for kind, count in zip(kinds.tolist(), counts.tolist(), strict=True) if kind]


def pruned(films, rows, hearing, tmp_path, size):
    samples = sources.from_llava_json(llava_file(tmp_path, rows), films, len(rows), 42)
    data = CalibrationData.from_samples(samples, hearing, size)
    folder = assemble(tmp_path / "tiny")
    result = prune(folder, data, out=tmp_path / "run", progress=False, accelerator="cpu")
    assert result.sparsity == pytest.approx(0.5, abs=1e-3)
    assert len(result.plan) == 14
    return samples


def test_videos_and_sounds_calibrate_videollama2(tmp_path, films, hearing):
    rows = [
        asked("<video>\nwhat plays?", video="loud.mp4"),
        asked("<audio>\nwhat sounds?", audio=["tone.wav"]),
        asked("<video>\n<audio>\nwhat plays?", video="loud.mp4", audio="tone.wav"),
        asked("<video>\nwhat is seen?", video=["mute.mp4"]),
    ]
    samples = pruned(films, rows, hearing, tmp_path, 2)
    assert samples[0].messages[0]["content"] == [{"type": "video"}, {"type": "text", "text": "what plays?"}]
    batch = Collator(hearing)([samples[k] for k in range(4)])
    seen, heard = (2, hearing.video_tokens), (3, hearing.audio_tokens)
    assert [runs(batch, row) for row in range(4)] == [[seen, heard], [heard], [seen, heard], [seen, heard]]
    direct = hearing("<video>", videos=str(films / "loud.mp4"))
    assert torch.equal(batch["pixel_values_videos"][0], direct["pixel_values_videos"][0])
    assert torch.equal(batch["input_features"][0], direct["input_features"][0])
    tone = hearing("<audio>", audio=str(films / "tone.wav"))["input_features"][0]
    assert all(torch.equal(batch["input_features"][k], tone) for k in (1, 2))
    colours = batch["pixel_values_videos"][2].mean((2, 3)).argmax(1).tolist()
    assert colours == [0, 1, 1, 2]  # red, green and blue, a second each


def test_videos_pictures_and_text_share_a_file(tmp_path, films, hearing):
    rows = [
        asked("what is a flute?"),
        asked("see\n<image>", image="9.png"),
        asked("<video>\nwhat plays?", video="loud.mp4"),
    ]
    samples = pruned(films, rows, hearing, tmp_path, 3)
    batch = Collator(hearing)([samples[k] for k in range(3)])
    tokens = hearing.video_tokens
    assert [runs(batch, row) for row in range(3)] == [[], [(1, tokens)], [(2, tokens), (3, hearing.audio_tokens)]]
    assert [len(batch[key]) for key in ("pixel_values", "pixel_values_videos", "input_features")] == [1, 1, 1]


def test_videos_are_decoded_for_processors_of_arrays(tmp_path, films):
    rows = [
        asked("<video>\nwhat plays?", video="loud.mp4"),
        asked("<audio>\n<video>\nwhat?", video="mute.mp4", audio="tone.wav"),
    ]
    path = llava_file(tmp_path, rows)
    both = SimpleNamespace(video_processor=object(), feature_extractor=SimpleNamespace(sampling_rate=8000))
    own, named = sources.from_llava_json(path, films, 2, 0, both)
    assert [part["type"] for part in own.messages[0]["content"]] == ["video", "audio", "text"]
    assert [part["type"] for part in named.messages[0]["content"]] == ["audio", "video", "text"]
    assert own.videos[0].shape == (chat_files.FRAMES, 32, 32, 3)
    assert len(own.audio[0]) == pytest.approx(3 * 8000, abs=1100)  # the codec pads
    assert len(named.audio[0]) == 8000
    deaf = sources.from_llava_json(path, films, 2, 0, SimpleNamespace(video_processor=object()))[0]
    assert (len(deaf.videos), deaf.audio) == (1, [])
    assert [part["type"] for part in deaf.messages[0]["content"]] == ["video", "text"]


@pytest.mark.parametrize("kind", ["video", "audio"])
def test_missing_and_damaged_videos_and_sounds_are_named(tmp_path, films, hearing, kind):
    (films / "bad.mp4").write_bytes(bytes(range(256)) * 40)
    arrays = SimpleNamespace(video_processor=object(), feature_extractor=SimpleNamespace(sampling_rate=8000))
    for name in ("none.mp4", "bad.mp4"):
        path = llava_file(tmp_path, [asked(f"<{kind}>\nwhat?", **{kind: name})])
        for processor, use in ((None, Collator(hearing)), (arrays, list)):
            with pytest.raises(ValueError, match=name) as caught:
                use([sources.from_llava_json(path, films, 1, 0, processor)[0]])
            assert (name == "bad.mp4" and processor is None) or "calibration.json entry 1: " in str(caught.value)
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (asked("what?", video="loud.mp4"), "entry 1: has 1 videos but its turns have 0 <video>"),
        (
            asked("<video>\nwhat?", video="loud.mp4", audio="a.wav"),
            "entry 1: has 1 sounds but its turns have 0 <audio>",
        ),
        (asked("<audio>\nwhat?", audio=[3]), r"entry 1: has audio \[3\]: expected a path or a list of paths"),
        (asked("<video>\nwhat?", video={"a": 1}), "entry 1: has video {'a': 1}: expected a path"),
    ],
)
def test_media_and_placeholders_that_do_not_match_name_the_row_before_anything_is_read(tmp_path, row, message):
    with pytest.raises(ValueError, match=message):
        sources.from_llava_json(llava_file(tmp_path, [row]), None, 1, 0)

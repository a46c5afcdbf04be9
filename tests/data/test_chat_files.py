"""Files of conversations: how lines end, and one bad row among many."""

import json

import pytest
from PIL import Image

from tamp_lightning.config.finetune import FinetuneData
from tamp_lightning.data import sources
from tamp_lightning.data.conversations import ConversationCollator
from tamp_lightning.data.readers.item import BadRow
from tamp_lightning.finetune.batches import make_batches

from ..fixtures import media


def row(text, **named):
    return {**named, "messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "yes"}]}


def texts(data):
    return [data[k].messages[0]["content"][-1]["text"] for k in range(len(data))]


SEPARATORS = "one\u2028two\u0085three\x0bfour"
LINES = [json.dumps(row(text), ensure_ascii=False) for text in ("a", SEPARATORS, "c")]
FILES = {
    "plain": "\n".join(LINES).encode(),
    "last line ended": ("\n".join(LINES) + "\n").encode(),
    "empty lines": ("\n" + "\n\n".join(LINES) + "\n \n").encode(),
    "byte order mark": "\n".join(LINES).encode("utf-8-sig"),
    "mark and an empty line": ("\ufeff\n" + "\n".join(LINES)).encode(),
    "windows": "\r\n".join(LINES).encode(),
}


@pytest.mark.parametrize("kind", FILES)
def test_lines_end_at_line_feeds_alone(kind, tmp_path):
    (tmp_path / "a.jsonl").write_bytes(FILES[kind])
    data = sources.from_llava_json(tmp_path / "a.jsonl", None, 3, 0)
    assert texts(data) == ["a", SEPARATORS, "c"]
    assert [sample.id for sample in data] == [0, 1, 2]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_json_file_may_have_a_mark(encoding, tmp_path):
    content = "[" + ",".join(LINES) + "]"
    (tmp_path / "a.json").write_bytes(content.encode(encoding))
    assert texts(sources.from_llava_json(tmp_path / "a.json", None, 3, 0)) == ["a", SEPARATORS, "c"]


@pytest.fixture
def folder(tmp_path):
    """Forty rows, one in four bad: cut line, no file, damaged picture, no turns, too few placeholders, no object."""
    media.save_picture(tmp_path / "good.jpg", "blue")
    (tmp_path / "damaged.jpg").write_bytes(media.picture_bytes("red", "JPEG")[:300])
    bad = [
        '{"messages": [',
        json.dumps(row("<image>", images="gone.jpg")),
        json.dumps(row("<image>", images="damaged.jpg")),
        json.dumps({"text": "no turns"}),
        json.dumps(row("no tag", images="good.jpg")),
        "[1]",
        json.dumps(row("<image>", images="https://example.org/a.jpg")),
        json.dumps(row("<image>", images="damaged.jpg")),
        json.dumps({"messages": [{"role": "user", "content": 3}]}),
        json.dumps(row("<image><image>", images="good.jpg")),
    ]
    lines = [bad[k // 4] if k % 4 == 3 else json.dumps(row(f"<image>{k}", images="good.jpg")) for k in range(40)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    return tmp_path


def test_one_bad_row_is_refused_by_default_and_the_way_out_is_named(folder):
    with pytest.raises(BadRow, match=r"a\.jsonl line 4: no JSON: .* \(bad_rows: skip leaves such rows out"):
        sources.from_llava_json(folder / "a.jsonl", None, 5, 0)


@pytest.mark.parametrize("count", [5, 20, 30])
def test_bad_rows_are_left_out_counted_and_replaced(folder, count):
    with pytest.warns(
        UserWarning, match=r"a\.jsonl: \d+ bad rows are left out, first a\.jsonl line 4: no JSON.*; .* line 8"
    ):
        data = sources.from_llava_json(folder / "a.jsonl", None, count, 0, bad_rows="skip")
    assert len(data) == count
    assert len({data[k].id for k in range(count)}) == count
    assert all(data[k].images[0].getpixel((4, 4))[2] > 180 for k in range(count))
    assert texts(data) == [str(data[k].id) for k in range(count)]
    # two rows with damaged pictures are only found where they are drawn
    assert 8 <= len(data.bad) <= 10
    if count == 30:
        assert [row.place for row in data.bad if "damaged.jpg" in row.reason] == ["a.jsonl line 12", "a.jsonl line 32"]


def test_without_bad_rows_both_draw_the_same(tmp_path, recwarn):
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(row(str(k))) for k in range(50)))
    refusing, skipping = (
        sources.from_llava_json(tmp_path / "a.jsonl", None, 7, 3, bad_rows=how) for how in ("refuse", "skip")
    )
    assert [s.id for s in refusing] == [s.id for s in skipping]
    assert not skipping.bad
    assert not [w for w in recwarn if "left out" in str(w.message)]


@pytest.mark.filterwarnings("ignore:.*left out")
@pytest.mark.parametrize(
    ("count", "message"),
    [(33, "33 calibration samples wanted, .* without its bad rows has 32"), (31, "31 samples wanted, .* has 30 that")],
)
def test_too_few_good_rows_are_said(folder, count, message):
    with pytest.raises(ValueError, match=message) as error:
        sources.from_llava_json(folder / "a.jsonl", None, count, 0, bad_rows="skip")
    assert "\n" not in str(error.value)


def test_nothing_good_is_an_error(tmp_path):
    (tmp_path / "a.jsonl").write_text("{\n")
    with pytest.raises(ValueError, match=r"has no usable row \(1 bad, first a\.jsonl line 1: no JSON"):
        sources.from_llava_json(tmp_path / "a.jsonl", None, 1, 0, bad_rows="skip")


def test_finetuning_goes_on_past_a_damaged_picture(folder, processor):
    choice = FinetuneData(source="llava_json", path=str(folder / "a.jsonl"), held_out=2, batch=1, bad_rows="skip")
    with pytest.warns(UserWarning, match="8 bad rows are left out"):
        batches = make_batches(choice, processor, [1])
    samples = batches.train.samples
    assert len(samples) == 32
    with pytest.warns(UserWarning, match=r"damaged\.jpg.*left out, the next row takes its place"):
        found = [samples[k] for k in range(32)]
    assert len({sample.id for sample in found}) == 30
    assert (ConversationCollator(processor)([found[0]])["labels"] != -100).any()
    with pytest.raises(BadRow, match="line 4: no JSON"):
        make_batches(FinetuneData(source="llava_json", path=str(folder / "a.jsonl"), held_out=2), processor, [1])


def test_videos_that_a_processor_opens_itself_are_tried_first(tmp_path):
    pytest.importorskip("av")
    media.save_clip(tmp_path / "v.mp4")
    (tmp_path / "cut.mp4").write_bytes((tmp_path / "v.mp4").read_bytes()[:300])
    rows = [row("<video>what?", videos=["cut.mp4" if k % 2 else "v.mp4"]) for k in range(6)]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    with pytest.warns(UserWarning, match=r"cut\.mp4"):
        data = sources.from_llava_json(tmp_path / "a.json", None, 3, 0, bad_rows="skip")
    assert [data[k].id for k in range(3)] == [0, 2, 4]


def llava_rows(tmp_path, rows):
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(rows))
    return path


TURNS = [{"from": "human", "value": "<image>\nwhat?"}, {"from": "gpt", "value": "that"}]


def test_too_few_samples(tmp_path):
    path = llava_rows(tmp_path, [{"conversations": TURNS}] * 2)
    with pytest.raises(ValueError, match=r"3 calibration samples wanted, .*calibration\.json has 2"):
        sources.from_llava_json(path, None, 3, 0)
    with pytest.raises(ValueError, match=r"251 calibration samples wanted, easy-VQA's .* has 250"):
        sources.easy_vqa_pool(0, 4).draw(251, 0)
    with pytest.raises(ValueError, match="0 calibration samples wanted"):
        sources.easy_vqa_pool(0, 4).draw(0, 0)


def test_missing_and_damaged_pictures_are_named(tmp_path):
    path = llava_rows(
        tmp_path, [{"image": "a.png", "conversations": TURNS}, {"image": "b.png", "conversations": TURNS}]
    )
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    with pytest.raises(ValueError, match=r"cannot read picture .*b\.png"):
        sources.from_llava_json(path, None, 2, 0)[1]
    (tmp_path / "a.png").unlink()
    with pytest.raises(
        ValueError, match=r"calibration\.json entry 1: cannot read image .*a\.png: there is no such file"
    ):
        sources.from_llava_json(path, None, 2, 0)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "[{", r"cannot read .*a\.json: Expecting"),
        ("a.jsonl", '{"conversations": []}\n{', "line 2: no JSON"),
        ("a.json", '{"conversations": []}', "entry 1: expected an object, got list"),
        ("a.json", '[{"text": "x"}]', "entry 1: no turns: expected 'conversations'"),
        ("a.json", "[]", r"a\.json has no rows"),
        ("a.json", None, r"cannot read .*a\.json"),
        ("a.jsonl", None, r"cannot read .*a\.jsonl"),
    ],
)
def test_broken_calibration_files_are_named(tmp_path, name, text, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        sources.from_llava_json(tmp_path / name, None, 1, 0)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("turn", [{"from": "tool", "value": "x"}, {"value": "x"}, {"from": "human"}])
def test_a_turn_without_known_speaker_or_text_is_refused(tmp_path, turn):
    with pytest.raises(ValueError, match="conversation turn"):
        sources.from_llava_json(llava_rows(tmp_path, [{"conversations": [TURNS[0], turn]}]), None, 1, 0)


@pytest.mark.parametrize("pictures", [2, 3])
def test_pictures_and_placeholders_that_do_not_match_name_the_row(tmp_path, pictures):
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    rows = [{"conversations": TURNS}, {"image": ["a.png"] * pictures, "conversations": TURNS}]
    with pytest.raises(ValueError, match=f"entry 2: has {pictures} pictures but its turns have 1 <image>"):
        sources.from_llava_json(llava_rows(tmp_path, rows), None, 2, 0)

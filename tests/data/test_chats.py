"""Rows of conversation files: LLaVA's form, `messages` with media, and what a tag in a text is."""

import pytest

from tamp_lightning.data.calibration import Collator, Sample, spelled_out
from tamp_lightning.data.chats import read_chat
from tamp_lightning.data.readers.item import BadRow

from ..fixtures import media

ANSWER = {"from": "gpt", "value": "yes"}


def parts(row, turn=0):
    """Texts as they are, media as <kind>."""
    content = read_chat(row).messages[turn]["content"]
    return [part["text"] if part["type"] == "text" else f"<{part['type']}>" for part in content]


def llava(text, **named):
    return {**named, "conversations": [{"from": "human", "value": text}, ANSWER]}


def messages(text, **named):
    return {**named, "messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "yes"}]}


TWO = ["a.png", "b.png"]
PLACES = {
    "several stay where they stand": (
        llava("Compare <image> with <image> please", image=TWO),
        ["Compare ", "<image>", " with ", "<image>", " please"],
    ),
    "several in front": (llava("<image>\n<image>\nWhich?", image=TWO), ["<image>", "<image>", "Which?"]),
    "gaps between lines stay": (
        llava("first\n<image>\nsecond\n<image>", image=TWO),
        ["first\n", "<image>", "\nsecond\n", "<image>"],
    ),
    "one in front": (llava("<image>\nWhich?", image="a.png"), ["<image>", "Which?"]),
    "one at the end goes in front, as in LLaVA": (llava("Which?\n<image>", image="a.png"), ["<image>", "Which?"]),
    "one at the end stays elsewhere": (messages("Which?\n<image>", images=["a.png"]), ["Which?\n", "<image>"]),
    "pictures and a video": (
        llava("Is <image> in <video>?", image="a.png", video="v.mp4"),
        ["Is ", "<image>", " in ", "<video>", "?"],
    ),
    "a tag of another medium is text": (llava("How do I close a <video> tag?"), ["How do I close a <video> tag?"]),
    "also beside a picture": (
        llava("<image>\nWhere is the <audio> tag?", image="a.png"),
        ["<image>", "Where is the <audio> tag?"],
    ),
    "nothing but a picture": (llava("<image>", image="a.png"), ["<image>", ""]),
}  # fmt: skip


@pytest.mark.parametrize("case", PLACES)
def test_where_placeholders_stand(case):
    row, expected = PLACES[case]
    assert parts(row) == expected


PICTURE = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}]
FORMS = {
    "llama-factory": messages("<image>What?", images=["a.png"]),
    "sharegpt with images": {
        "conversations": [{"from": "human", "value": "<image>What?"}, ANSWER],
        "images": ["a.png"],
        "system": "",
    },
    "ms-swift, media as objects": messages("<image>What?", images=[{"path": "a.png"}]),
    "parts that name nothing": {
        "messages": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}, ANSWER],
        "images": ["a.png"],
    },
    "parts that name their picture": {
        "messages": [
            {"role": "user", "content": [{"type": "image", "image": "a.png"}, {"type": "text", "text": "What?"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "yes"}]},
        ]
    },
    "parts as OpenAI has them": {
        "messages": [
            {"role": "user", "content": [
                {"type": "image_url", "image_url": {"url": "a.png"}}, {"type": "text", "text": "What?"}
            ]},
            {"role": "assistant", "content": "yes"},
        ]
    },
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_comes_to_the_same(form):
    chat = read_chat(FORMS[form])
    assert chat.messages == [*PICTURE, {"role": "assistant", "content": [{"type": "text", "text": "yes"}]}]
    assert chat.media == {"image": ["a.png"], "video": [], "audio": []}


def test_all_media_and_a_system_turn():
    row = messages("<video><audio><image>What?", images=["a.png"], videos=["v.mp4"], audios=["s.wav"])
    chat = read_chat({**row, "system": "Be brief."})
    assert chat.messages[0] == {"role": "system", "content": [{"type": "text", "text": "Be brief."}]}
    assert [part["type"] for part in chat.messages[1]["content"]] == ["video", "audio", "image", "text"]
    assert chat.media == {"image": ["a.png"], "video": ["v.mp4"], "audio": ["s.wav"]}


def test_names_follow_their_parts():
    """A part that names its picture stands between two that take theirs from the row."""
    content = [
        {"type": "image"},
        {"type": "image", "image": "own.png"},
        {"type": "image"},
        {"type": "text", "text": "?"},
    ]
    row = {"messages": [{"role": "user", "content": content}], "images": TWO}
    assert read_chat(row).media["image"] == ["a.png", "own.png", "b.png"]


BAD = {
    "no turns": ({"query": "a", "response": "b"}, r"no turns: expected 'conversations' \(from, value\) or 'messages'"),
    "empty": ({"messages": []}, "no turns"),
    "no object": ({"messages": ["hello"]}, "a turn is 'hello': expected"),
    "speaker": ({"messages": [{"role": "judge", "content": "x"}]}, "turn from 'judge' says 'x': expected text"),
    "no text": ({"messages": [{"role": "user", "content": None}]}, "turn from 'user' says None"),
    "too few": (messages("<image>", images=TWO), "has 2 pictures but its turns have 1 <image>"),
    "too many": (messages("<image><image>", images="a.png"), "has 1 pictures but its turns have 2 <image>"),
    "part": ({"messages": [{"role": "user", "content": [{"type": "sketch"}]}]}, "expected type text, image, video"),
    "number": (messages("<image>", images=[3]), r"has images \[3\]: expected a path or a list of paths"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_is_refused(case):
    row, message = BAD[case]
    with pytest.raises(BadRow, match=message) as error:
        read_chat(row)
    assert "\n" not in str(error.value)


def test_a_tag_that_is_text_is_no_picture_to_the_processor(processor):
    """The processor looks for its placeholder in the text: the sentence must pass, and no picture be missed."""
    named, plain = (
        Sample(k, read_chat(row).messages, [media.picture()] * k)
        for k, row in ((1, llava("<image>\nis <video> a tag?", image="a.png")), (0, llava("Is <image> a tag?")))
    )
    batch = Collator(processor)([plain, named])
    counts = (batch["input_ids"] == processor.image_token_id).sum(1).tolist()
    assert counts[0] == 0
    assert counts[1] > 1
    turns = spelled_out(plain.messages, processor)
    assert turns[0]["content"] == [{"type": "text", "text": "Is < image> a tag?"}]
    assert spelled_out(named.messages, processor) == named.messages

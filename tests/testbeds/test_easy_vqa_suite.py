"""easy-VQA as benchmarks: what is asked, what counts as an answer, what a blind model would score."""

import pytest
import torch
from PIL import Image

from tamp_lightning.data import easy_vqa
from tamp_lightning.data.easy_vqa import CANDIDATES, Question
from tamp_lightning.data.packing import pack
from tamp_lightning.testbeds import easy_vqa_suite as benchmark
from tamp_lightning.testbeds.easy_vqa_suite import EasyVqaSuite, headline

QUESTIONS = [
    Question(0, 5, "is there a red shape?", "yes"),
    Question(1, 5, "is there a teal shape?", "no"),
    Question(2, 7, "what shape is in the image?", "circle"),
    Question(3, 7, "what color is the shape?", "blue"),
    Question(4, 9, "what shape is in the image?", "triangle"),
    Question(5, 9, "is there not a circle?", "yes"),
]


@pytest.fixture
def small(processor, monkeypatch):
    monkeypatch.setattr(easy_vqa, "balanced_slice", lambda split, size: QUESTIONS)

    def make(pictures="own"):
        return EasyVqaSuite(processor, "test", "quick", pictures)

    return make


def test_questions_of_a_picture_stand_together(small, processor):
    suite = small()
    assert len(suite) == 3
    assert [positions for _, positions in suite] == [[0, 1], [2, 3], [4, 5]]
    packed, _ = suite[1]
    expected = pack(processor, easy_vqa.load_picture("test", 7), [(q.text, q.answer) for q in QUESTIONS[2:4]])
    assert torch.equal(packed.input_ids, expected.input_ids)
    assert torch.equal(packed.pixels["pixel_values"], expected.pixels["pixel_values"])
    batch = suite.collate([suite[2], suite[0]])
    assert batch["items"].tolist() == [4, 5, 0, 1]
    assert batch["answers"][:, 0].tolist() == [0, 0, 1, 1]


def test_the_likeliest_candidate_of_the_questions_own_kind_wins(small, processor):
    suite = small()
    logits = torch.zeros(6, len(processor.tokenizer))

    def raise_to(row, word, value):
        logits[row, processor.tokenizer(word)["input_ids"][0]] = value

    for row, word in enumerate(["no", "yes", "rectangle", "teal", "circle", "yes"]):
        raise_to(row, word, 2.0)
    raise_to(0, "circle", 9.0)  # no answer to a yes/no question
    raise_to(3, "<unk>", 9.0)
    assert suite.predict(torch.arange(6), logits) == ["no", "yes", "rectangle", "teal", "circle", "yes"]
    assert suite.predict(torch.tensor([2, 0]), logits[[2, 0]]) == ["rectangle", "no"]


def test_every_candidate_can_be_predicted(small, processor):
    suite = small()
    rows = {"yes_no": 0, "shape": 2, "colour": 3}
    for kind, words in CANDIDATES.items():
        for word in words:
            logits = torch.zeros(1, len(processor.tokenizer))
            logits[0, processor.tokenizer(word)["input_ids"][0]] = 1
            assert suite.predict(torch.tensor([rows[kind]]), logits) == [word]


def test_answers_that_begin_alike_are_refused(processor):
    with pytest.raises(ValueError, match="do not all begin with different tokens"):
        benchmark._first_tokens(processor, ["unknownword", "otherunknown"])


def test_floor_by_hand(small, monkeypatch):
    train = [
        Question(0, 0, "is there a red shape?", "yes"),
        Question(1, 0, "is there a teal shape?", "yes"),
        Question(2, 0, "what shape is in the image?", "circle"),
        Question(3, 0, "what shape is in the image?", "circle"),
        Question(4, 0, "what shape is in the image?", "triangle"),
        Question(5, 0, "what color is the shape?", "red"),
    ]
    monkeypatch.setattr(easy_vqa, "questions", lambda split: {"train": train}[split])
    # yes/no: right, wrong, never seen; shape: right, wrong; colour: wrong
    assert small().chance() == {"yes_no": pytest.approx(1 / 3), "shape": 0.5, "colour": 0.0}


def test_metrics_have_a_row_per_question_and_score_right_and_wrong(small):
    results = {}
    for kind, metric in small().metrics().items():
        rows = [k for k, q in enumerate(QUESTIONS) if q.kind == kind]
        answers = [QUESTIONS[k].answer for k in rows]
        wrong = {"yes": "no", "no": "yes"}.get(answers[0], "nothing")
        metric.update(torch.tensor(rows), [wrong, *answers[1:]], answers)
        results[kind] = metric.compute()
        assert len(metric.values()) == len(QUESTIONS)
    assert headline(results) == {"yes_no": pytest.approx(2 / 3), "shape": 0.5, "colour": 0.0}


def test_controls_show_other_pictures_and_ask_the_same(small):
    own, shuffled, blank = small("own"), small("shuffled"), small("blank")
    for k in range(3):
        assert torch.equal(own[k][0].input_ids, shuffled[k][0].input_ids)
        assert torch.equal(own[k][0].input_ids, blank[k][0].input_ids)
        grey = pack(own.processor, Image.new("RGB", (64, 64), (128, 128, 128)), [("a", "b")])
        assert torch.equal(blank[k][0].pixels["pixel_values"], grey.pixels["pixel_values"])
    pixels = [[suite[k][0].pixels["pixel_values"] for k in range(3)] for suite in (own, shuffled)]
    for k in range(3):
        assert not torch.equal(pixels[0][k], pixels[1][k])
        assert any(torch.equal(pixels[1][k], other) for other in pixels[0])


def test_no_picture_stands_in_for_itself(processor):
    suite = EasyVqaSuite(processor, "test", "standard", "shuffled")
    assert sorted(suite._stand_in) == sorted(suite._stand_in.values()) == sorted(p for p, _ in suite.groups)
    assert [p for p, other in suite._stand_in.items() if p == other] == []


def test_slices_have_their_sizes(processor):
    suites = {size: EasyVqaSuite(processor, "test", size) for size in ("quick", "standard", "full")}
    assert len(suites["quick"].items) == pytest.approx(400, abs=6)
    assert len(suites["standard"].items) == pytest.approx(1500, abs=6)
    assert len(suites["full"].items) == len(easy_vqa.questions("test"))
    assert suites["standard"].chance()["yes_no"] == pytest.approx(0.5, abs=0.01)

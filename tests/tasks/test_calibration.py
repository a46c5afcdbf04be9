"""Which source a recipe's calibration section means."""

import pytest

from tamp_lightning.config.recipe import CalibrationChoice
from tamp_lightning.data.easy_vqa import by_picture, questions
from tamp_lightning.tasks.calibration import calibration_samples
from tamp_lightning.testbeds.skill_samples import caption


@pytest.mark.parametrize("source", ["easy_vqa", "easy_vqa_forms", "skills", "captions"])
def test_beds_give_what_is_asked_for_by_seed(source):
    def drawn(seed):
        samples = calibration_samples(CalibrationChoice(source=source, samples=5, turns=2, seed=seed), None)
        return [samples[k] for k in range(len(samples))]

    first, again, other = drawn(1), drawn(1), drawn(2)
    assert len(first) == 5
    assert all(len(sample.messages) <= 4 for sample in first)
    assert [sample.messages for sample in first] == [sample.messages for sample in again]
    assert [sample.id for sample in first] != [sample.id for sample in other]


def test_each_source_has_pictures_of_its_own():
    easy, shown = (
        calibration_samples(CalibrationChoice(source=source, samples=2), None) for source in ("easy_vqa", "captions")
    )
    assert easy[0].id in by_picture(questions("calibration"))
    assert shown[0].images[0].tobytes() == caption(shown[0].id)[0].tobytes()
    assert shown[0].messages[1]["content"] == [{"type": "text", "text": caption(shown[0].id)[1]}]

"""What sections of a finetune recipe refuse."""

import pytest

from tamp_lightning.config.finetune import DistillSection, FinetuneData, LoraSection, Schedule

BAD = {
    "steps": (Schedule, {"steps": 0}, r"schedule\.steps is 0; it has to be at least 1"),
    "decay": (Schedule, {"weight_decay": -0.1}, r"schedule\.weight_decay is -0\.1; it has to be at least 0"),
    "rate": (Schedule, {"lr": 0.0}, r"schedule\.lr is 0\.0; it has to be above 0"),
    "warm-up": (Schedule, {"steps": 5, "warmup": 5}, r"schedule\.warmup is 5; it has to be below .*steps \(5\)"),
    "rank": (LoraSection, {"rank": 0}, r"lora\.rank is 0"),
    "temperature": (DistillSection, {"temperature": 0.0}, r"distill\.temperature is 0\.0; it has to be above 0"),
    "blocks": (DistillSection, {"blocks": -1.0}, r"distill\.blocks is -1\.0; it has to be at least 0"),
    "batch": (FinetuneData, {"batch": 0}, r"data\.batch is 0; it has to be at least 1"),
    "path": (FinetuneData, {"source": "llava_json"}, r"data\.source llava_json needs data\.path"),
}


@pytest.mark.parametrize(("section", "values", "complaint"), BAD.values(), ids=BAD)
def test_impossible_values_are_refused(section, values, complaint):
    with pytest.raises(ValueError, match=complaint):
        section(**values)


def test_limits_themselves_are_allowed():
    assert Schedule(steps=1, warmup=0, clip=0, patience=0, weight_decay=0).lr is None
    assert FinetuneData(source="llava_json", path="a.json", batch=1, held_out=1).questions == 8

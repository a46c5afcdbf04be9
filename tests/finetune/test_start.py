"""What finetuning starts from."""

from pathlib import Path

import pytest

from tamp_lightning.evaluation.whole import load_whole
from tamp_lightning.finetune.start import find_start
from tamp_lightning.runs.folder import RunFolder

OLD = Path(__file__).parents[1] / "goldens" / "run_0.1.0"


def test_a_run_folder_of_0_1_0_is_a_start(finetune):
    start = find_start(str(OLD), allow_dense=False)
    assert (start.size, start.kept, start.sparsity) == (23040, 11520, pytest.approx(0.5))
    assert (start.run, start.source, start.inferred) == (OLD, "tiny", "")
    after = load_whole(finetune(checkpoint=OLD) / "model", None).state_dict()
    before = load_whole(OLD / "model", None).state_dict()
    moved = 0
    for name, mask in RunFolder(OLD).read_masks().items():
        weight = after[f"{name}.weight"]
        assert not weight[~mask].any()
        moved += int((weight != before[f"{name}.weight"])[mask].sum())
    assert moved > 5000

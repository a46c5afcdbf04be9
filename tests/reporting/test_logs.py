"""What TensorBoard gets."""

import pytest

from tamp_lightning.reporting.run import Run

SCALARS = {"block/sparsity", "block/tokens_per_sample", "retention", "kl", "score/shape_pruned"}


def test_tensorboard_gets_scalars_and_the_heat_map(make_run, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = ["--trainer.logger=true", f"--trainer.default_root_dir={tmp_path}"]
    run = Run.read(make_run("logged", "wanda", *logger)[0])
    (logs,) = {path.parent for path in tmp_path.rglob("events.out.tfevents*")}
    held = EventAccumulator(str(logs)).Reload()
    assert set(held.Tags()["scalars"]) >= SCALARS
    assert held.Tags()["images"] == ["sparsity"]
    sparsity = {event.step: event.value for event in held.Scalars("block/sparsity")}
    assert sparsity == pytest.approx({block: run.plan.block_sparsity(block) for block in run.plan.blocks})
    assert held.Scalars("retention")[0].value == pytest.approx(run.metrics["retention"])

"""What finetuning refuses, before anything is written."""

import pytest

import tamp_lightning.tasks.finetune as engine
from tamp_lightning.config.finetune import DistillSection, FinetuneData
from tamp_lightning.config.recipe import FinetuneRecipe
from tamp_lightning.finetune import trainer as finetune_trainer

BAD = {
    "no checkpoint": ({"checkpoint": "nowhere"}, FileNotFoundError, "checkpoint 'nowhere' is no folder"),
    "nothing to resume": ({"resume": True}, ValueError, "last.ckpt is missing, so there is nothing to go on from"),
    "trainer": ({"trainer": {"max_steps": 3}}, ValueError, "trainer.max_steps follows from the recipe's own keys"),
    "held out": (
        {"data": FinetuneData(held_out=3500)},
        ValueError,
        "data.held_out is 3500, easy-VQA's train split has",
    ),
    "no file": (
        {"data": FinetuneData(source="llava_json", path="none.json")},
        ValueError,
        "cannot read none.json",
    ),
    "tensorboard": ({"log": "tensorboard"}, ValueError, "'tensorboard', which is not installed"),
}


@pytest.mark.parametrize(("changes", "error", "complaint"), BAD.values(), ids=BAD)
def test_bad_input_is_refused_and_nothing_is_written(finetune, tmp_path, monkeypatch, changes, error, complaint):
    monkeypatch.setattr(finetune_trainer, "find_spec", lambda name: None)
    with pytest.raises(error, match=complaint):
        finetune(**changes)
    assert not list(tmp_path.iterdir())


def test_a_taken_folder_is_refused(finetune):
    finetune()
    with pytest.raises(ValueError, match="out exists: nothing is overwritten"):
        finetune()
    with pytest.raises(ValueError, match="is there, so training is over"):
        finetune(resume=True)


def test_a_checkpoint_of_another_recipe_is_not_resumed(finetune, tmp_path):
    run = finetune()
    for path in (run / "model").iterdir():
        path.unlink()
    (run / "model").rmdir()
    with pytest.raises(ValueError, match="resume: the checkpoint has mode 'full', this run 'lora'"):
        finetune(mode="lora", resume=True)


@pytest.mark.parametrize("content", [b"", b"PK not a zip", b"cos\nsystem\n(S'true'\ntR."])
def test_a_damaged_checkpoint_is_not_resumed(finetune, tmp_path, content):
    (tmp_path / "out/checkpoints").mkdir(parents=True)
    (tmp_path / "out/checkpoints/last.ckpt").write_bytes(content)
    with pytest.raises(ValueError, match=r"resume: .*last.ckpt is damaged \(.*\): start anew"):
        finetune(resume=True)


def test_the_teacher_has_to_be_known_and_to_fit(finetune, sparse, bed, processor, tmp_path):
    with pytest.raises(ValueError, match=r"mode distill needs the dense model: give --distill.teacher=DIR"):
        finetune(mode="distill", checkpoint=sparse / "model")
    config = type(bed.config).from_dict(bed.config.to_dict())
    config.text_config.num_hidden_layers = 2
    type(bed)(config).save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match=r"is another model than .*: blocks or vocabulary differ"):
        finetune(mode="distill", distill=DistillSection(teacher=str(tmp_path / "other")))
    assert [p.name for p in tmp_path.iterdir()] == ["other"]


def test_a_run_that_is_nan_says_so(finetune, tmp_path):
    with pytest.raises(ValueError, match="no held-out loss was finite"):
        finetune(schedule={"lr": 1e30, "clip": 0.0, "warmup": 0, "check_every": 4, "patience": 1})


def test_several_processes_need_one_name(finetune, sparse):
    trainer = {"devices": 2, "strategy": "ddp", "accelerator": "cpu", "enable_progress_bar": False}
    with pytest.raises(ValueError, match="trainer asks for 2 processes: name one run folder for all with --out"):
        engine.run_finetune(FinetuneRecipe(checkpoint=str(sparse), trainer=trainer), "t", "", None)

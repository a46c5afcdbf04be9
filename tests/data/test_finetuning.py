"""Which examples are read, in which order, by whom."""

from types import SimpleNamespace

import pytest
import torch

from tamp_lightning.config.finetune import FinetuneData
from tamp_lightning.data.calibration import Sample, SampleList
from tamp_lightning.data.easy_vqa import by_picture, questions
from tamp_lightning.data.finetuning import Conversations, FinetuneBatches, PictureQuestions, collate_packed, split
from tamp_lightning.finetune.batches import make_batches


class Numbers(torch.utils.data.Dataset):
    def __len__(self):
        return 5

    def __getitem__(self, index):
        return index


def reads(epoch, rank=0, world=1, lengths=(3, 3, 2)):
    data = FinetuneBatches(Numbers(), Numbers(), list, 2, lengths)
    data.trainer = SimpleNamespace(global_rank=rank, world_size=world, current_epoch=epoch)
    return list(data.train_dataloader()), list(data.val_dataloader())


def test_epochs_follow_one_another():
    assert reads(0)[0] == [[0, 1], [2, 3], [4, 5]]
    assert reads(2)[0] == [[12, 13], [14, 15]]
    assert reads(1)[1] == [[0, 1], [2, 3], [4]]


def test_processes_share_the_same_examples():
    seen = [reads(1, rank, 2)[0] for rank in range(2)]
    assert seen == [[[12, 14], [16, 18], [20, 22]], [[13, 15], [17, 19], [21, 23]]]
    assert sorted(n for rank in range(2) for batch in reads(0, rank, 2)[1] for n in batch) == [0, 1, 2, 3, 4]


def test_split_is_a_partition():
    ours, others = split(20, 6, 3, "data")
    assert sorted(ours + others) == list(range(20))
    assert (len(others), split(20, 6, 3, "data")) == (6, (ours, others))
    assert split(20, 6, 4, "data")[1] != others
    with pytest.raises(ValueError, match=r"data.held_out is 20, data has 20: nothing is left to train on"):
        split(20, 20, 0, "data")


def test_pictures_are_train_pictures_and_held_out_ones_are_not_trained_on(processor):
    data = make_batches(FinetuneData(held_out=10, questions=3), processor, [1])
    ours, others = ({number for number, _ in part.pictures} for part in (data.train, data.held_out))
    assert (len(others), len(ours & others)) == (10, 0)
    assert ours | others == set(by_picture(questions("train")))
    assert max(ours | others) < 3500


def test_an_example_is_told_by_its_number(processor):
    numbers = sorted(by_picture(questions("train")))[:4]
    train = PictureQuestions(processor, numbers, 3, seed=1)
    once, again, other = train[1000], train[1000], train[1001]
    assert torch.equal(once.pixels["pixel_values"], again.pixels["pixel_values"])
    assert torch.equal(once.input_ids, again.input_ids)
    assert not torch.equal(once.pixels["pixel_values"], other.pixels["pixel_values"])
    assert not torch.equal(
        once.pixels["pixel_values"], PictureQuestions(processor, numbers, 3, 2)[1000].pixels["pixel_values"]
    )
    batch = collate_packed([once, other])
    assert torch.equal(batch["valid"], batch["segments"] >= 0)


def test_conversations_come_once_a_lap_in_another_order():
    samples = SampleList(9, lambda k: Sample(k, [], []))
    endless = Conversations(samples, [1, 3, 5, 7], seed=0)
    laps = [[endless[4 * lap + k].id for k in range(4)] for lap in range(6)]
    assert all(sorted(lap) == [1, 3, 5, 7] for lap in laps)
    assert len({tuple(lap) for lap in laps}) > 1
    once = Conversations(samples, [1, 3], None)
    assert [once[k].id for k in range(len(once))] == [1, 3]

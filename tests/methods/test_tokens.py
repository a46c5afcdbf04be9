import pytest
import torch

from tamp_lightning.methods.tokens import All, Amia, Seen
from tamp_lightning.ops.tokens import select_representative

VALID = torch.arange(30) < torch.tensor([[30], [12]])
MODALITY = torch.arange(30).expand(2, 30) % 2


def test_all_weighs_every_token_but_padding():
    assert torch.equal(All().weights(Seen(MODALITY, VALID)), VALID)
    assert not All.needs_attention
    assert not All.needs_outputs


def test_amia_passes_its_constants_on():
    generator = torch.Generator().manual_seed(0)
    outputs, attention = torch.randn(2, 30, 8, generator=generator), torch.rand(2, 30, generator=generator)
    constants = {
        "neighbors": 2, "forward_decay": 0.5, "reverse_decay": 0.3,
        "bandwidth": 0.8, "threshold": 0.05, "positive_only": True,
    }  # fmt: skip
    got = Amia(**constants).weights(Seen(MODALITY, VALID, outputs, attention))
    assert torch.equal(got, select_representative(outputs, attention, MODALITY, valid=VALID, **constants))
    assert not torch.equal(got, Amia().weights(Seen(MODALITY, VALID, outputs, attention)))
    assert Amia.needs_attention
    assert Amia.needs_outputs


def test_amia_says_what_is_missing():
    with pytest.raises(ValueError, match="no outputs"):
        Amia().weights(Seen(MODALITY, VALID, None, torch.ones(2, 30)))
    with pytest.raises(ValueError, match="no attention"):
        Amia().weights(Seen(MODALITY, VALID, torch.ones(2, 30, 4)))


@pytest.mark.parametrize(
    "change", [{"neighbors": -1}, {"threshold": -0.1}, {"bandwidth": 0.0}, {"forward_decay": float("nan")}]
)
def test_amia_refuses_impossible_constants(change):
    with pytest.raises(ValueError, match=f"amia.{next(iter(change))} is"):
        Amia(**change)

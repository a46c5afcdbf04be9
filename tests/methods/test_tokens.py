import pytest
import torch

from tamp_lightning.methods.tokens import All, Amia, TokenContext
from tamp_lightning.ops.tokens import Picking, select_representative

VALID = torch.arange(30) < torch.tensor([[30], [12]])
MODALITY = torch.arange(30).expand(2, 30) % 2


def test_all_weighs_every_token_but_padding():
    assert torch.equal(All().weights(TokenContext(MODALITY, VALID)), VALID)
    assert not All.needs_attention
    assert not All.needs_outputs


def test_amia_passes_its_constants_on():
    generator = torch.Generator().manual_seed(0)
    outputs, attention = torch.randn(2, 30, 8, generator=generator), torch.rand(2, 30, generator=generator)
    constants = {
        "neighbors": 2, "forward_decay": 0.5, "reverse_decay": 0.3,
        "bandwidth": 0.8, "threshold": 0.05, "positive_only": True, "max_tokens": 25, "precision": "bf16",
    }  # fmt: skip
    got = Amia(**constants).weights(TokenContext(MODALITY, VALID, outputs, attention))
    assert torch.equal(got, select_representative(outputs, attention, MODALITY, Picking(**constants), valid=VALID))
    assert not torch.equal(got, Amia().weights(TokenContext(MODALITY, VALID, outputs, attention)))
    assert Amia.needs_attention
    assert Amia.needs_outputs


def test_amia_says_what_is_missing():
    with pytest.raises(ValueError, match="no outputs"):
        Amia().weights(TokenContext(MODALITY, VALID, None, torch.ones(2, 30)))
    with pytest.raises(ValueError, match="no attention"):
        Amia().weights(TokenContext(MODALITY, VALID, torch.ones(2, 30, 4)))


@pytest.mark.parametrize(
    "change",
    [{"neighbors": -1}, {"threshold": -0.1}, {"bandwidth": 0.0}, {"forward_decay": float("nan")}, {"max_tokens": 0}],
)
def test_amia_refuses_impossible_constants(change):
    with pytest.raises(ValueError, match=f"amia.{next(iter(change))} is"):
        Amia(**change)


def groups(generator):
    """Outputs of q and v, which read one input, of o and of down."""
    make = {name: torch.randn(2, 30, d, generator=generator) for name, d in (("q", 8), ("v", 4), ("o", 8), ("down", 8))}
    return [{"q": make["q"], "v": make["v"]}, {"o": make["o"]}, {"down": make["down"]}]


def test_amia_chooses_per_linear_per_input_or_per_block():
    generator = torch.Generator().manual_seed(1)
    seen, given = TokenContext(MODALITY, VALID, attention=torch.rand(2, 30, generator=generator)), groups(generator)

    def alone(outputs):
        return select_representative(outputs, seen.attention, MODALITY, valid=VALID)

    by_linear = Amia().by_linear(seen, given)
    assert list(by_linear) == ["q", "v", "o", "down"]
    assert all(torch.equal(by_linear[name], alone(x)) for group in given for name, x in group.items())
    by_input = Amia(per="input").by_linear(seen, given)
    fused = alone(torch.cat([given[0]["q"], given[0]["v"]], -1))
    assert by_input["q"] is by_input["v"]
    assert torch.equal(by_input["q"], fused)
    assert torch.equal(by_input["o"], by_linear["o"])
    by_block = Amia(per="block").by_linear(seen, given)
    assert all(picked is by_block["q"] for picked in by_block.values())
    assert torch.equal(by_block["down"], fused)
    assert not torch.equal(fused, by_linear["down"])

"""A batch beside the model it is for."""

import warnings

import pytest
import torch

from tamp_lightning.passes.inputs import Lengths, check_vocabulary

from ..stream.conftest import make_llama, make_llava


def test_token_ids_without_an_embedding_are_named():
    model = make_llama()
    size = model.get_input_embeddings().num_embeddings
    check_vocabulary(model, torch.tensor([[0, size - 1]]), "batch 3")
    for wrong in (size, -1):
        with pytest.raises(ValueError, match=rf"^batch 3: input_ids holds {wrong} in row 1, .* 0 to {size - 1}: use"):
            check_vocabulary(model, torch.tensor([[0, 1], [2, wrong]]), "batch 3")


def test_placeholders_of_media_may_lie_outside():
    model = make_llava()
    size = model.get_input_embeddings().num_embeddings
    model.config.image_token_id = size + 5
    check_vocabulary(model, torch.tensor([[1, size + 5]]), "")
    with pytest.raises(ValueError, match=f"input_ids holds {size + 6} in row 0"):
        check_vocabulary(model, torch.tensor([[size + 5, size + 6]]), "")


def test_samples_longer_than_the_model_was_made_for_are_counted():
    model, lengths = make_llama(), Lengths()
    model.config.max_position_embeddings = 3
    valid = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0]]).bool()
    lengths.look(model, {"valid": valid[1:2]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lengths.tell(model)
    lengths.look(model, {"valid": valid})
    with pytest.warns(UserWarning, match=r"2 of 4 calibration samples have more tokens \(up to 5\) than"):
        lengths.tell(model)

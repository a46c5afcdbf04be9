"""What can only be said of a batch beside the model it is for: its token ids, and how long its samples are."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

from torch import Tensor
from transformers import PreTrainedModel

from tamp_lightning.errors import InputError

PLACEHOLDERS = tuple(f"{kind}_token_{form}" for kind in ("image", "video", "audio") for form in ("id", "index"))


def check_vocabulary(model: PreTrainedModel, ids: Tensor, place: str) -> None:
    """Refuse token ids that the model has no embedding for; placeholders of media may lie outside.

    Args:
        model: whose embeddings count.
        ids: [B,n].
        place: what the message begins with.

    Raises:
        InputError: names the place, the id and the vocabulary.
    """
    size = model.get_input_embeddings().get_parameter("weight").shape[0]
    wrong = (ids < 0) | (ids >= size)
    if not bool(wrong.any()):
        return
    for name in PLACEHOLDERS:
        number = getattr(model.config, name, None)
        if isinstance(number, int):
            wrong = wrong & (ids != number)
    if bool(wrong.any()):
        row = int(wrong.any(1).long().argmax())
        raise InputError(
            f"{place}: input_ids holds {int(ids[wrong][0])} in row {row}, but {type(model).__name__} has the ids 0 to "
            f"{size - 1}: use the tokenizer of this checkpoint"
        )


class Lengths:
    """How many samples are longer than the model was made for."""

    def __init__(self) -> None:
        self.samples = self.too_long = self.longest = 0

    def look(self, model: PreTrainedModel, batch: Mapping[str, Tensor]) -> None:
        """Count a batch, which has `valid` [B,n]."""
        limit, lengths = _limit(model), batch["valid"].sum(1)
        self.samples += len(lengths)
        self.longest = max(self.longest, int(lengths.max()))
        self.too_long += 0 if limit is None else int((lengths > limit).sum())

    def tell(self, model: PreTrainedModel) -> None:
        """Warn if there are some."""
        if self.too_long:
            warnings.warn(
                f"{self.too_long} of {self.samples} calibration samples have more tokens (up to {self.longest}) than "
                f"{type(model).__name__} has positions ({_limit(model)}): nobody trained it on the rest",
                stacklevel=2,
            )


def _limit(model: PreTrainedModel) -> int | None:
    return getattr(model.config.get_text_config(), "max_position_embeddings", None)

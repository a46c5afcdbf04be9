"""Answer rules: metrics made for a list of items, and the closed sets of replies for scoring by likelihood."""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from tamp_lightning.benchmarks.base import ItemScore, Metric
from tamp_lightning.data.readers.item import Item
from tamp_lightning.errors import InputError
from tamp_lightning.metrics import (
    AnswerScore,
    ChoiceAccuracy,
    CircularAccuracy,
    MMEScore,
    SampleTable,
    YesNo,
    extractor,
    scorer,
)
from tamp_lightning.metrics.groups import Groups, group_means, prefixed, rows_by_group

YES_NO = ("Yes", "No")


def groups(items: Sequence[Item], by: Sequence[str]) -> Groups | None:
    """Labels of the items by the names in `by`; plain labels for one name, None where no item has any."""
    labels = {name: [item.groups.get(name) for item in items] for name in by}
    labels = {name: given for name, given in labels.items() if any(given)}
    if not labels:
        return None
    return next(iter(labels.values())) if len(by) == 1 else labels


def choice(protocol: str, by: Sequence[str] = ()) -> Metric:
    """Accuracy of the option a reply names; a reply that names none is wrong and counted as unparsed."""
    return lambda items: ChoiceAccuracy(len(items), extractor(protocol), groups(items, by))


def videomme(items: Sequence[Item]) -> SampleTable:
    """As `choice`, by VideoLLaMA2's rule for VideoMME, which looks for option texts without their final period."""
    find = extractor("videollama2_videomme")

    def bare(reply: str, options: Sequence[str]) -> int:
        return find(reply, [option.removesuffix(".") for option in options])

    by = groups(items, ["duration", "domain", "sub_category", "task_type"])
    return ChoiceAccuracy(len(items), bare, by)


def circular(protocol: str, by: str) -> Metric:
    """CircularEval: all rotations of a question have to be right."""

    def make(items: Sequence[Item]) -> SampleTable:
        labels = [item.groups.get(by) for item in items]
        base = [item.id == item.circle for item in items]
        return CircularAccuracy([item.circle for item in items], extractor(protocol), labels, base=base)

    return make


def answer(name: str, by: Sequence[str] = ()) -> Metric:
    """Mean of a scorer of free answers."""
    return lambda items: AnswerScore(len(items), scorer(name), groups(items, by))


def mme(items: Sequence[Item]) -> SampleTable:
    """MME's perception and cognition."""
    return MMEScore([item.circle for item in items], [item.groups["category"] for item in items])


class PopeScore(YesNo):
    """`YesNo` by POPE's own rule, with ``accuracy/<category>``."""

    def __init__(self, items: Sequence[Item], **kwargs: Any) -> None:
        super().__init__(len(items), protocol="official", **kwargs)
        self.rows = rows_by_group(groups(items, ["category"]), len(items))

    def compute(self) -> dict[str, Tensor]:
        """Return the figures of `YesNo` and of each category as scalar tensors."""
        means = prefixed("accuracy", group_means(self._values(), self.rows))
        return {**super().compute(), **self._result(means)}


def mmmu(items: Sequence[Item]) -> SampleTable:
    """MMMU: a letter for questions with options, a phrase or number for the others."""
    find, judge = extractor("mmmu"), scorer("mmmu_open")

    def score(reply: str, item: Any) -> float:
        if item.options:
            return float(find(reply, item.options) == item.target)
        return judge(reply, item.target)

    return ItemScore(len(items), score, groups(items, ["subject"]))


def letters(item: Item) -> Sequence[str]:
    """The letters of the options."""
    return "".join(letter for letter, text in zip(string.ascii_uppercase, item.options, strict=False) if text)


def number(item: Item) -> int:
    """Number of the right option among those that have a text."""
    assert isinstance(item.target, int)
    return len(list(filter(None, item.options[: item.target])))


def yes_or_no(item: Item) -> Sequence[str]:
    """Yes and No, whatever the question."""
    return YES_NO


def lower_yes_or_no(item: Item) -> Sequence[str]:
    """As `yes_or_no`, spelled as the data sets' own answers."""
    return tuple(word.lower() for word in YES_NO)


def option_texts(item: Item) -> Sequence[str]:
    """The texts of the options."""
    return tuple(filter(None, item.options))


def yes_is_first(item: Item) -> int:
    """0 where the answer is yes."""
    return 0 if item.target == "yes" else 1


def label_letters(labels: Sequence[str]) -> tuple[Callable[[Item], Sequence[str]], Callable[[Item], int]]:
    """Candidates and right candidate where the options are a fixed list of labels, named by letters."""
    folded = [label.lower() for label in labels]

    def right(item: Item) -> int:
        assert isinstance(item.target, str)
        if item.target.lower() not in folded:
            raise InputError(f"label {item.target!r} is none of {', '.join(labels)}")
        return folded.index(item.target.lower())

    return (lambda item: string.ascii_uppercase[: len(labels)]), right

"""Benchmark metrics as torchmetrics classes over pure scorers."""

from tamp_lightning.metrics.answer import AnswerScore
from tamp_lightning.metrics.choice import ChoiceAccuracy
from tamp_lightning.metrics.circular import CircularAccuracy
from tamp_lightning.metrics.compare import (
    PairedDifference,
    corrected_retention,
    flips,
    paired_difference,
    retention,
    standard_error,
)
from tamp_lightning.metrics.fidelity import DenseFidelity
from tamp_lightning.metrics.interleave import interleave_categories
from tamp_lightning.metrics.letters import EXTRACTORS, Extractor, extractor
from tamp_lightning.metrics.likelihood import LikelihoodChoice
from tamp_lightning.metrics.mme import MMEScore
from tamp_lightning.metrics.scorers import SCORERS, Scorer, scorer
from tamp_lightning.metrics.table import SampleTable
from tamp_lightning.metrics.text import wups
from tamp_lightning.metrics.yes_no import YesNo

__all__ = [
    "EXTRACTORS",
    "SCORERS",
    "AnswerScore",
    "ChoiceAccuracy",
    "CircularAccuracy",
    "DenseFidelity",
    "Extractor",
    "LikelihoodChoice",
    "MMEScore",
    "PairedDifference",
    "SampleTable",
    "Scorer",
    "YesNo",
    "corrected_retention",
    "extractor",
    "flips",
    "interleave_categories",
    "paired_difference",
    "retention",
    "scorer",
    "standard_error",
    "wups",
]

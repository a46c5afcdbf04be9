"""Benchmarks about sounds, as VideoLLaMA2's scripts run them."""

from __future__ import annotations

from tamp_lightning.benchmarks import hub, prompts, rules
from tamp_lightning.benchmarks.base import Benchmark
from tamp_lightning.data.readers import sounds
from tamp_lightning.data.readers.item import Source
from tamp_lightning.metrics.labels import TUT2017 as SCENES
from tamp_lightning.metrics.labels import VOCALSOUND as VOICES

CLOTHOAQA = Benchmark(
    name="clothoaqa",
    about="ClothoAQA test, upper-case equality",
    source=hub.sounds("ClothoAQA", None, "clotho_aqa_test_filtered"),
    read=sounds.read_clothoaqa,
    prompt=prompts.clothoaqa,
    metric=rules.answer("videollama2_short_answer", ["kind"]),
    headline="score",
)
VOCALSOUND = Benchmark(
    name="vocalsound",
    about="VocalSound test, the reply holds the class or is its letter",
    source=hub.sounds("vocalsound", None, "test"),
    read=sounds.read_labels,
    prompt=prompts.vocalsound,
    metric=rules.answer("videollama2_vocalsound", ["label"]),
    headline="score",
    candidates=rules.label_letters(VOICES)[0],
    answer_index=rules.label_letters(VOICES)[1],
)
TUT2017 = Benchmark(
    name="tut2017",
    about="TUT Acoustic Scenes 2017 evaluation, the reply holds the class or is its letter",
    source=Source(),
    read=sounds.read_labels,
    prompt=prompts.tut2017,
    metric=rules.answer("videollama2_tut2017", ["label"]),
    headline="score",
    candidates=rules.label_letters(SCENES)[0],
    answer_index=rules.label_letters(SCENES)[1],
)

BENCHMARKS = (CLOTHOAQA, VOCALSOUND, TUT2017)

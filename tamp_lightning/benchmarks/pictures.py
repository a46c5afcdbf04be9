"""Benchmarks about pictures, as lmms-eval runs them for LLaVA-NeXT."""

from __future__ import annotations

from tamp_lightning.benchmarks import hub, prompts, rules, submissions
from tamp_lightning.benchmarks.base import Benchmark
from tamp_lightning.data.readers import choices, mmbench, vqa, yes_no
from tamp_lightning.data.readers.item import Source

MMBENCH = Benchmark(
    name="mmbench",
    about="MMBench-EN dev, CircularEval; a reply that names no option by its rules is wrong, no judge",
    source=hub.pictures("MMBench", "en", "dev"),
    read=mmbench.read,
    prompt=prompts.mmbench,
    metric=rules.circular("mmbench_lmms", "category"),
    headline="circular",
    units="all",
    new_tokens=1024,
    candidates=rules.letters,
    answer_index=rules.number,
    submission=submissions.mmbench,
)
POPE = Benchmark(
    name="pope",
    about="POPE, the official rule: a reply without No, no or not in its first sentence is a yes",
    source=hub.pictures("POPE", None, "test"),
    read=yes_no.read_pope,
    prompt=prompts.word,
    metric=rules.PopeScore,
    headline="accuracy",
    new_tokens=128,
    candidates=rules.yes_or_no,
    answer_index=rules.yes_is_first,
)
MME = Benchmark(
    name="mme",
    about="MME, perception (0 to 2000) and cognition (0 to 800)",
    source=hub.pictures("MME", None, "test"),
    read=yes_no.read_mme,
    prompt=prompts.word,
    metric=rules.mme,
    headline="perception",
    units="pair",
    candidates=rules.yes_or_no,
    answer_index=rules.yes_is_first,
)
TEXTVQA = Benchmark(
    name="textvqa",
    about="TextVQA validation, VQA soft accuracy, no OCR tokens in the prompt",
    source=hub.pictures("textvqa", None, "validation"),
    read=vqa.read_textvqa,
    prompt=prompts.textvqa,
    metric=rules.answer("vqa_evalai"),
    headline="score",
    submission=submissions.vqa,
)
VIZWIZ = Benchmark(
    name="vizwiz",
    about="VizWiz-VQA val, VQA soft accuracy",
    source=hub.pictures("VizWiz-VQA", None, "val"),
    read=vqa.read_vizwiz,
    prompt=prompts.vizwiz,
    metric=rules.answer("vqa_evalai", ["answer_type"]),
    headline="score",
    submission=submissions.vizwiz,
)
OK_VQA = Benchmark(
    name="ok_vqa",
    about="OK-VQA val2014, VQA soft accuracy",
    source=hub.pictures("OK-VQA", None, "val2014"),
    read=vqa.read_ok_vqa,
    prompt=prompts.ok_vqa,
    metric=rules.answer("vqa_evalai"),
    headline="score",
)
VQAV2 = Benchmark(
    name="vqav2",
    about="VQAv2 validation, VQA soft accuracy",
    source=hub.pictures("VQAv2", None, "validation"),
    read=vqa.read_vqav2,
    prompt=prompts.word,
    metric=rules.answer("vqa_vqav2_lmms", ["answer_type"]),
    headline="score",
    submission=submissions.vqa,
)
GQA = Benchmark(
    name="gqa",
    about="GQA test-dev balanced, exact match after lower-casing and deleting punctuation",
    source=hub.pictures("GQA", "testdev_balanced_instructions", "testdev"),
    read=vqa.read_gqa,
    prompt=prompts.word,
    metric=rules.answer("exact"),
    headline="score",
)
SCIENCEQA = Benchmark(
    name="scienceqa_img",
    about="ScienceQA test, questions with a picture; a letter, or a letter and a period, at the start",
    source=hub.pictures("ScienceQA", "ScienceQA-IMG", "test"),
    read=choices.read_scienceqa,
    prompt=prompts.scienceqa,
    metric=rules.choice("letter_dot", ["subject", "grade"]),
    headline="accuracy",
    candidates=rules.letters,
    answer_index=rules.number,
)
MMMU = Benchmark(
    name="mmmu",
    about="MMMU validation, mean over questions; a reply that names nothing is wrong, not a random option",
    source=hub.pictures("MMMU", None, "validation"),
    read=choices.read_mmmu,
    prompt=prompts.mmmu,
    metric=rules.mmmu,
    headline="score",
    new_tokens=128,
    submission=submissions.mmmu,
)
MUIRBENCH = Benchmark(
    name="muirbench",
    about="MuirBench test, mean over questions",
    source=Source("MUIRBENCH/MUIRBENCH", None, "test"),
    read=choices.read_muirbench,
    prompt=prompts.options,
    metric=rules.choice("muirbench", ["task", "image_relation", "image_type"]),
    headline="accuracy",
    candidates=rules.letters,
    answer_index=rules.number,
)

BENCHMARKS = (MMBENCH, POPE, MME, TEXTVQA, VIZWIZ, OK_VQA, VQAV2, GQA, SCIENCEQA, MMMU, MUIRBENCH)

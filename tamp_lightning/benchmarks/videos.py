"""Benchmarks about videos, as VideoLLaMA2's scripts run them (NExT-QA: lmms-eval)."""

from __future__ import annotations

from dataclasses import replace

from tamp_lightning.benchmarks import hub, prompts, rules, submissions
from tamp_lightning.benchmarks.base import Benchmark
from tamp_lightning.data.readers import sounds, videos
from tamp_lightning.data.readers.item import Source

VIDEOMME = Benchmark(
    name="videomme",
    about="VideoMME without subtitles, mean over questions; a reply that names no option is wrong (upstream: C)",
    source=hub.videos("Video-MME", None, "test"),
    read=videos.read_videomme,
    prompt=prompts.videomme,
    metric=rules.videomme,
    headline="accuracy",
    candidates=rules.letters,
    answer_index=rules.number,
)
VIDEOMME_SUBTITLES = replace(
    VIDEOMME,
    name="videomme_subtitles",
    about="VideoMME with the subtitles shown at the frames' times before the question",
    read=videos.read_videomme_subtitles,
    subtitles=True,
)
MVBENCH = Benchmark(
    name="mvbench",
    about="MVBench, mean over all questions; a reply that names no option is wrong (upstream: C)",
    source=Source("OpenGVLab/MVBench", None, "train"),
    read=videos.read_mvbench,
    prompt=prompts.bracketed,
    metric=rules.choice("videollama2_mvbench", ["task"]),
    headline="accuracy",
    candidates=rules.letters,
    answer_index=rules.number,
)
EGOSCHEMA = Benchmark(
    name="egoschema",
    about="EgoSchema's labelled subset; a reply that names no option is wrong (upstream: C)",
    source=hub.videos("egoschema", "Subset", "test"),
    read=videos.read_egoschema,
    prompt=prompts.egoschema,
    metric=rules.choice("videollama2_egoschema"),
    headline="accuracy",
    candidates=rules.letters,
    answer_index=rules.number,
    submission=submissions.egoschema,
)
NEXTQA = Benchmark(
    name="nextqa",
    about="NExT-QA multiple choice, test",
    source=hub.videos("NExTQA", "MC", "test"),
    read=videos.read_nextqa,
    prompt=prompts.options,
    metric=rules.choice("mmmu", ["type"]),
    headline="accuracy",
    candidates=rules.letters,
    answer_index=rules.number,
)
PERCEPTIONTEST = Benchmark(
    name="perceptiontest",
    about="PerceptionTest multiple choice, validation; a reply that names no option is wrong (upstream: C)",
    source=hub.videos("PerceptionTest_Val", "mc_question_val", "validation"),
    read=videos.read_perceptiontest,
    prompt=prompts.bracketed,
    metric=rules.choice("videollama2_perceptiontest", ["area", "reasoning"]),
    headline="accuracy",
    candidates=rules.letters,
    answer_index=rules.number,
    submission=submissions.perceptiontest,
)
MUSIC_AVQA = Benchmark(
    name="music_avqa",
    about="MUSIC-AVQA test, upper-case equality; the data TAMP calibrates VideoLLaMA2 on come from its training part",
    source=Source(),
    read=sounds.read_conversations,
    prompt=prompts.bare,
    metric=rules.answer("videollama2_short_answer"),
    headline="score",
    sound=True,
)

BENCHMARKS = (VIDEOMME, VIDEOMME_SUBTITLES, MVBENCH, EGOSCHEMA, NEXTQA, PERCEPTIONTEST, MUSIC_AVQA)

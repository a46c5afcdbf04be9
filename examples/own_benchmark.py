"""A benchmark of your own: lines of JSON with `id`, `question`, `answer` and the name of a picture beside the file.

A benchmark is an object: a reader that makes items of a source, a prompt, and a metric. In a recipe:

    plugins: [examples/own_benchmark.py]      # this file's code then runs
    scores: {benchmarks: [my_words], data: {my_words: questions.jsonl}}
"""

from tamp_lightning.benchmarks import prompts, rules
from tamp_lightning.benchmarks.base import Benchmark
from tamp_lightning.benchmarks.registry import BENCHMARKS
from tamp_lightning.data.readers.fields import picture, said, text
from tamp_lightning.data.readers.item import Item, Items, Row, Source, gather
from tamp_lightning.data.readers.tables import json_lines, rows_of


def read(source: Source) -> Items:
    """One item per line; a line that is not what it should be is named by `gather`, or left out with `skip_bad`."""
    rows, sha256 = rows_of(source, {".jsonl": json_lines})

    def parse(row: Row) -> Item:
        shown = picture(row, "picture", source)
        return Item(id=text(row, "id"), question=said(row, "question"), target=said(row, "answer"), media=(shown,))

    return gather(rows, parse, source, sha256)


MY_WORDS = Benchmark(
    name="my_words",
    about="my questions, exact match after lower-casing and deleting punctuation",
    source=Source(),
    read=read,
    prompt=prompts.word,
    metric=rules.answer("exact"),
    headline="score",
)
BENCHMARKS.add(MY_WORDS.name, MY_WORDS)

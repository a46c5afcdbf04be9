"""One checkpoint, the same local questions, asked and scored by lmms-eval and by `tamp evaluate`: do they agree?

    python perf/lmms_eval_agreement.py --work runs/lmms_eval
    python perf/lmms_eval_agreement.py --checkpoint runs/RUN/model --data pope=/data/pope mmbench=/data/MMBench.tsv

lmms-eval lives in an environment of its own, made in the folder --work when it is first needed. Its tasks are its own
files but for the data set, which is the local questions in the columns of the hub's; its model is its own llava_hf.
Both tools take float32 and batches of one. Each question's prompt, reply and score are compared; the table is printed
for docs/evaluation.md, and the questions that differ are written to WORK/differences.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from datasets import Dataset, Image
from measure import save

from tamp_lightning.benchmarks.registry import BENCHMARKS
from tamp_lightning.data.readers.item import Item, Source
from tamp_lightning.testbeds import easy_vqa_layouts
from tamp_lightning.testbeds.checkpoints import resolve

LMMS_EVAL = "0.7.3"
NEEDED = """transformers accelerate datasets evaluate loguru sacrebleu tenacity decord pytz openpyxl jinja2 pillow dill
pytablewriter sympy scikit-learn sentencepiece protobuf requests python-dotenv httpx"""
"""What lmms-eval imports on the way to a local task and llava_hf; all that it names would be some 200 packages."""
LETTERS = "ABCDE"


@dataclass(frozen=True)
class Asked:
    """A benchmark in a wording, as both tools know it."""

    name: str
    theirs: str
    """Task file of lmms-eval, below its tasks."""
    split: str
    figure: str
    """Their figure."""
    row: Callable[[Item], dict[str, Any]]
    rows: int = 1
    """Prompts that count together: rotations, or a pair."""
    share: float = 1.0
    """What their figure is divided by to be ours."""
    bare: bool = False

    @property
    def task(self) -> str:
        return f"local_{self.name}{'_bare' if self.bare else ''}"


def yes_no(item: Item) -> dict[str, Any]:
    return {"question_id": item.id, "question": item.question, "answer": item.target, **item.groups}


def pair(item: Item) -> dict[str, Any]:
    asked = f"{item.question} Please answer yes or no."
    return {**yes_no(item), "question_id": item.circle, "question": asked, "answer": str(item.target).capitalize()}


def free(item: Item) -> dict[str, Any]:
    answers = [{"answer": text, "answer_id": k + 1} for k, text in enumerate(item.target)]
    return {"question_id": item.id, "question": item.question, "answers": answers, **item.groups}


def lettered(item: Item) -> dict[str, Any]:
    texts = {letter: dict(enumerate(item.options)).get(k) or "nan" for k, letter in enumerate(LETTERS)}
    groups = {"category": item.groups["category"], "L2-category": item.groups.get("l2_category", "")}
    told = {"hint": item.hint or "nan", "source": "local", "split": "dev"}
    return {"index": int(item.id), "question": item.question, "answer": LETTERS[item.target], **texts, **groups, **told}


ASKED = (
    Asked("pope", "pope/pope.yaml", "test", "pope_accuracy", yes_no),
    Asked("vqav2", "vqav2/vqav2_val.yaml", "validation", "exact_match", free),
    Asked("mme", "mme/mme.yaml", "test", "mme_perception_score", pair, rows=2),
    Asked("mmbench", "mmbench/mmbench_en_dev_static.yaml", "dev", "gpt_eval_score", lettered, rows=4, share=100),
    Asked("pope", "pope/pope.yaml", "test", "pope_accuracy", yes_no, bare=True),
    Asked("vqav2", "vqav2/vqav2_val.yaml", "validation", "exact_match", free, bare=True),
)


def environment(folder: Path) -> Path:
    """Python of lmms-eval's environment, with this one's torch and transformers."""
    python = folder / "venv" / "bin" / "python"
    if not (folder / "ready").exists():
        locked = Path(__file__).parents[1] / "requirements" / "lock.txt"
        torch = next(line for line in locked.read_text().splitlines() if line.startswith("torch=="))
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        pip = [python, "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, torch], check=True)
        subprocess.run([*pip, "--constraint", locked, *NEEDED.split()], check=True)
        # it reaches into filelock 3
        subprocess.run([*pip, "--no-deps", f"lmms-eval=={LMMS_EVAL}", "filelock<4"], check=True)
        (folder / "ready").touch()
    return python


def tasks_of(python: Path) -> Path:
    """Folder of lmms-eval's own task files."""
    found = [python, "-c", "import importlib.util as i; print(i.find_spec('lmms_eval').submodule_search_locations[0])"]
    return Path(subprocess.run(found, capture_output=True, text=True, check=True).stdout.strip()) / "tasks"


def write_task(asked: Asked, items: list[Item], tasks: Path, folder: Path) -> None:
    """Their task over the local questions: a parquet file in the hub's columns, and a task file that names it."""
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / f"{asked.task}.parquet"
    rows = [{**asked.row(item), "image": {"bytes": _bytes(item), "path": None}} for item in items]
    Dataset.from_list(rows).cast_column("image", Image()).to_parquet(data)
    task = {
        "include": str(tasks / asked.theirs),
        "task": asked.task,
        "dataset_path": "parquet",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {asked.split: str(data.absolute())}},
    }
    if asked.bare:
        task["lmms_eval_specific_kwargs"] = {"default": {"pre_prompt": "", "post_prompt": ""}}
    (folder / f"{asked.task}.yaml").write_text(json.dumps(task, indent=1))


def _bytes(item: Item) -> bytes:
    content = item.media[0].content
    return content.read_bytes() if isinstance(content, Path) else content()


def ask_them(python: Path, checkpoint: Path, work: Path, wanted: list[Asked]) -> dict[str, dict[str, Any]]:
    """Task -> `score`, and `prompts`, `replies` and `scores` by question, in the order of the file."""
    out = work / "theirs"
    command = [python, "-m", "lmms_eval", "--model", "llava_hf", "--batch_size", "1", "--log_samples"]
    command += ["--model_args", f"pretrained={checkpoint},device=cpu,device_map=cpu,dtype=float32"]
    command += ["--tasks", ",".join(asked.task for asked in wanted), "--include_path", work / "tasks"]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(work / "datasets")}
    offline.pop("PYTHONPATH", None)
    shutil.rmtree(out, ignore_errors=True)
    subprocess.run([*command, "--output_path", out], check=True, env=offline)
    return read_theirs(python, out, wanted)


def read_theirs(python: Path, out: Path, wanted: list[Asked]) -> dict[str, dict[str, Any]]:
    """What lmms-eval wrote: its results, and its samples with prompt, reply and score."""
    found = next(out.glob("*/[0-9]*_results.json"), None)  # not those of submissions/
    if found is None:
        raise SystemExit("lmms-eval left no results: its error stands above")
    results = json.loads(found.read_text())["results"]
    told = {}
    for asked in wanted:
        lines = next(out.glob(f"*/*_samples_{asked.task}.jsonl")).read_text().splitlines()
        samples = sorted(map(json.loads, lines), key=lambda sample: sample["doc_id"])
        told[asked.task] = {
            "score": results[asked.task][f"{asked.figure},none"] / asked.share,
            "prompts": [sample["input"] for sample in samples],
            "replies": ["".join(sample["filtered_resps"]) for sample in samples],
            "scores": _scores(python, asked, [sample.get(asked.figure) for sample in samples]),
        }
    return told


def _scores(python: Path, asked: Asked, held: list[Any]) -> list[float]:
    """Scores of single prompts from what a task hands to its aggregation."""
    if asked.name != "mmbench":
        return [part["score"] if isinstance(part, dict) else part for part in held]
    worker = Path(__file__).with_name("lmms_eval_rotations.py")
    done = subprocess.run([python, worker], input=json.dumps(held), capture_output=True, text=True, check=True)
    return [float(hit) for hit in json.loads(done.stdout.splitlines()[-1])]


def _made(path: Path) -> float:
    return path.stat().st_mtime


def ask_us(checkpoint: Path, sources: dict[str, Source], work: Path, wanted: list[Asked]) -> dict[str, dict[str, Any]]:
    """The same of `tamp evaluate`, one call for each wording."""
    told = {}
    for bare in (False, True):
        out = work / ("ours-bare" if bare else "ours")
        data = {asked.name: vars(sources[asked.task]) for asked in wanted if asked.bare == bare}
        if not data:
            continue
        command = [sys.executable, "-m", "tamp_lightning", "evaluate", f"--checkpoint={checkpoint}", f"--out={out}"]
        command += [f"--benchmarks={','.join(data)}", f"--data={json.dumps(data)}", "--model.dtype=float32"]
        command += ["--batch_size=1", f"--prompt={'bare' if bare else 'protocol'}"]
        subprocess.run(command, check=True, env={**os.environ, "TAMP_ANSWERS": str(work / "answers")})
        for asked in (asked for asked in wanted if asked.bare == bare):
            folder = max((path.parent for path in out.rglob(f"{asked.name}-*/scores.json")), key=_made)
            told[asked.task] = _ours(asked, folder)
    return told


def _ours(asked: Asked, folder: Path) -> dict[str, Any]:
    figures = json.loads((folder / "scores.json").read_text())["results"]
    rows = pq.read_table(folder / "predictions.parquet").to_pylist()
    return {
        "score": figures[BENCHMARKS[asked.name].headline],
        "ids": [row["id"] for row in rows],
        "prompts": [row["prompt"] for row in rows],
        "replies": [row["reply"] for row in rows],
        "scores": [row["score"] for row in rows],
    }


def compared(asked: Asked, ours: dict[str, Any], theirs: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A row of the table, and the questions that differ in prompt, reply or score."""
    same: dict[str, list[bool]] = {part: [] for part in ("prompts", "replies", "scores")}
    different = []
    for k, question in enumerate(ours["ids"]):
        for part, equal in same.items():
            one, other = ours[part][k], theirs[part][k]
            equal.append(one.strip() == other.strip() if isinstance(one, str) else abs(one - other) < 1e-6)
        if not all(equal[-1] for equal in same.values()):
            both = {part: [ours[part][k], theirs[part][k]] for part in same}
            different.append({"task": asked.task, "id": question, **both})
    row = {
        "benchmark": asked.name,
        "wording": "question alone" if asked.bare else "its own",
        "questions": len(ours["ids"]),
        "lmms_eval": theirs["score"],
        "tamp": ours["score"],
        **{f"same_{part}": sum(equal) for part, equal in same.items()},
    }
    return row, different


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/lmms_eval"), help="environment, data, replies")
    parser.add_argument("--checkpoint", default="smol-llava-next", help="LLaVA-NeXT of transformers, or the test bed")
    parser.add_argument("--data", nargs="*", default=[], help="NAME=PATH; without any: easy-VQA's questions")
    parser.add_argument("--limit", type=int, default=40, help="prompts of each benchmark")
    options = parser.parse_args()
    given = dict(pair.split("=", 1) for pair in options.data)
    wanted = [asked for asked in ASKED if not given or asked.name in given]
    work: Path = options.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    python = environment(work)
    sources, tasks = {}, tasks_of(python)
    for asked in wanted:
        held = Source(given[asked.name]) if given else easy_vqa_layouts.write(asked.name, work / "files")
        limit = options.limit // (2 if asked.bare else asked.rows)
        sources[asked.task] = Source(held.path, media=held.media, limit=limit)
        write_task(asked, BENCHMARKS[asked.name].read(sources[asked.task]).items, tasks, work / "tasks")
    checkpoint = Path(resolve(options.checkpoint))
    ours = ask_us(checkpoint, sources, work, wanted)
    theirs = ask_them(python, checkpoint, work, wanted)
    rows, different = [], []
    for asked in wanted:
        row, found = compared(asked, ours[asked.task], theirs[asked.task])
        rows.append(row)
        different += found
    (work / "differences.json").write_text(json.dumps(different, indent=1))
    save("lmms_eval_agreement", rows, lmms_eval=LMMS_EVAL, checkpoint=options.checkpoint)


if __name__ == "__main__":
    main()

"""What the report shows of single samples, kept in the run folder so that the data are not needed again."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from transformers import LlavaNextConfig, PretrainedConfig

from tamp_lightning.data.calibration import Sample
from tamp_lightning.data.media import read_frames
from tamp_lightning.ops.diversity import MODALITIES
from tamp_lightning.passes.callbacks.chosen import Chosen, Watched
from tamp_lightning.reporting.anyres import llava_next_grids

SIDE = 336
FRAME_SIDE = 128
FRAMES = 4
TEXT_LENGTH = 400


def thumbnail(picture: Image.Image, side: int = SIDE) -> str:
    """A picture no larger than `side` pixels as data URI, PNG or JPEG, whichever is smaller."""
    small = picture.convert("RGB")
    small.thumbnail((side, side))
    encoded = {}
    for kind, options in (("png", {"optimize": True}), ("jpeg", {"quality": 85})):
        buffer = io.BytesIO()
        small.save(buffer, kind, **options)
        encoded[kind] = buffer.getvalue()
    kind = min(encoded, key=lambda name: len(encoded[name]))
    return f"data:image/{kind};base64,{base64.b64encode(encoded[kind]).decode()}"


def frames(video: Any) -> list[str]:
    """A few frames of a calibration sample's video as data URIs, in order; whatever form the processor takes it in."""
    if isinstance(video, Mapping):
        return frames(video["video"])
    if isinstance(video, str | Path):
        return [thumbnail(picture, FRAME_SIDE) for picture in read_frames(Path(video), FRAMES).pictures]
    steps = np.linspace(0, len(video) - 1, min(FRAMES, len(video))).round().astype(int)
    held = [video[int(k)] for k in steps]
    return [thumbnail(f if isinstance(f, Image.Image) else Image.fromarray(np.asarray(f)), FRAME_SIDE) for f in held]


def conversation_text(sample: Sample) -> str:
    """What is said in a sample, a line per turn, cut after some hundred characters."""
    lines = []
    for message in sample.messages:
        parts = message["content"]
        said = parts if isinstance(parts, str) else " ".join(p["text"] for p in parts if p["type"] == "text")
        lines.append(f"{message['role']}: {' '.join(said.split())}")
    text = "\n".join(lines)
    return text if len(text) <= TEXT_LENGTH else text[:TEXT_LENGTH] + " …"


def spans(modality: Tensor) -> Iterator[tuple[str, int, int]]:
    """Kind, first token and length of every run of tokens of one modality that is not text."""
    start = 0
    for kind, run in groupby(modality.tolist()):
        length = len(list(run))
        if kind:
            yield MODALITIES[kind], start, length
        start += length


def _medium(kind: str, tokens: int, item: Any, config: PretrainedConfig) -> dict[str, Any]:
    """What is shown beside the tokens of one picture or video."""
    if kind == "video":
        return {"frames": frames(item)}
    found: dict[str, Any] = {"picture": thumbnail(item)}
    if isinstance(config, LlavaNextConfig):
        grids = llava_next_grids(item.height, item.width, config)
        if sum(grid.tokens for grid in grids) == tokens:
            found["grids"] = [grid.to_dict() for grid in grids]
    return found


def sample_content(watched: Watched, sample: Sample, config: PretrainedConfig) -> dict[str, Any]:
    """One calibration sample: its text, its media, and per block how many linears chose each token."""
    media = [{"kind": kind, "start": start, "tokens": length} for kind, start, length in spans(watched.modality)]
    for kind, items in (("image", sample.images), ("video", sample.videos)):
        own = [medium for medium in media if medium["kind"] == kind]
        if len(own) == len(items):  # otherwise it cannot be told which tokens belong to which
            for medium, item in zip(own, items, strict=True):
                medium |= _medium(kind, int(str(medium["tokens"])), item, config)
    return {
        "id": watched.id,
        "text": conversation_text(sample),
        "tokens": len(watched.modality),
        "media": media,
        "linears": {str(block): count for block, count in watched.linears.items()},
        "chosen": {str(block): votes.tolist() for block, votes in watched.counts.items()},
    }


def examples_content(
    chosen: Chosen, samples: Iterable[Sample], config: PretrainedConfig, pictures: Mapping[str, Image.Image]
) -> dict[str, Any]:
    """Content of examples.json.

    Args:
        chosen: what the run noted.
        samples: the calibration samples in their order; read until those that were noted are found.
        config: the model's.
        pictures: of questions that are worth showing, by the name that predictions.parquet gives them.
    """
    wanted = {watched.id: watched for watched in chosen.samples}
    found: dict[int, dict[str, Any]] = {}
    for sample in samples if wanted else ():
        if sample.id in wanted:
            found[sample.id] = sample_content(wanted[sample.id], sample, config)
        if len(found) == len(wanted):
            break
    return {
        "calibration_tokens": dict(zip(MODALITIES, chosen.totals.tolist(), strict=True)),
        "samples": list(found.values()),
        "pictures": {name: thumbnail(picture) for name, picture in pictures.items()},
    }


def worst_flips(rows: Sequence[Mapping[str, Any]], limit: int = 6) -> list[Mapping[str, Any]]:
    """Questions that were right before pruning and are wrong after it: benchmarks in turn, largest loss first.

    The loss is that of the right answer's probability, where it is known. Of one picture only one question is taken.

    Args:
        rows: of predictions.parquet.
        limit: at most so many.
    """
    lost = [row for row in rows if row["dense_score"] >= 0.5 > row["pruned_score"]]
    lost.sort(key=lambda row: (row["pruned_certainty"] or 0.0) - (row["dense_certainty"] or 0.0))
    queues = {
        name: [row for row in lost if row["benchmark"] == name] for name in sorted({r["benchmark"] for r in lost})
    }
    found: dict[Any, Mapping[str, Any]] = {}
    while len(found) < limit and any(queues.values()):
        for queue in queues.values():
            row = next((row for row in queue if row["picture"] not in found), None)
            queue[:] = queue[queue.index(row) + 1 :] if row else []
            if row and len(found) < limit:
                found[row["picture"]] = row
    return list(found.values())

"""The stream owns the weights: it lends decoder blocks one at a time and takes them back pruned."""

from tamp_lightning.checkpoint.facts import AUDIO, IMAGE, TEXT, VIDEO, ModelFacts, find_facts
from tamp_lightning.stream.base import Stream
from tamp_lightning.stream.disk import DiskStream
from tamp_lightning.stream.follower import FollowerStream
from tamp_lightning.stream.memory import MemoryStream

__all__ = [
    "AUDIO",
    "IMAGE",
    "TEXT",
    "VIDEO",
    "DiskStream",
    "FollowerStream",
    "MemoryStream",
    "ModelFacts",
    "Stream",
    "find_facts",
]

"""The LightningModule: one epoch is one pass of all calibration samples over one decoder block."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor, nn

from tamp_lightning.distributed.partition import BatchPartition
from tamp_lightning.methods.method import Method
from tamp_lightning.passes.callbacks.attention import check_attention
from tamp_lightning.passes.contract import BlockPass, Pass, Task, Walk
from tamp_lightning.passes.inputs import Lengths, check_vocabulary
from tamp_lightning.stream.base import Stream
from tamp_lightning.stream.cache import ActivationCache, CachedBatch, CacheSpace
from tamp_lightning.stream.calls import record_calls
from tamp_lightning.stream.memory import MemoryStream
from tamp_lightning.stream.verify import check_walk, token_guard

EXTRAS = ("sample_ids", "valid", "ignored")


class TampModule(BlockPass):
    """Walks over the decoder blocks of a stream: dense to measure (if the method needs it), then to prune.

    Only `clock` is a parameter of this module. The model lives in the stream, outside Lightning's module tree, so that
    moving devices, wrapping for several processes and checkpoints never touch it. The clock's SGD with learning rate
    0 steps on the last batch of every pass, which makes `global_step` the number of finished passes.

    In mode one_shot there is one walk, over the dense model, at whose end all blocks are pruned. Otherwise, in the
    prune walk, a step first advances the cached hidden state through the finished predecessor, then runs the
    current block for the collectors; so every block sees what its pruned predecessors really produce.
    A method may ask for several passes over a block, each for something else (`stage`); it is pruned after the last.

    Args:
        stream: owner of the weights.
        method: what to measure and how to prune.
        measured: number of blocks that an earlier run has measured.
        pruned: number of blocks that an earlier run has pruned. The hidden states before the first block that is
            left are computed again: passes of stage "replay" run the blocks before it and nothing else.
        space: where hidden states wait between two blocks.

    Raises:
        InputError: the method chooses tokens by attention, which not every block of the model has.
    """

    def __init__(
        self, stream: Stream, method: Method, measured: int = 0, pruned: int = 0, space: CacheSpace | None = None
    ) -> None:
        super().__init__()
        if method.token_rule.needs_attention:
            check_attention(stream.model, stream.facts, method.tokens)
        self.automatic_optimization = False
        self.strict_loading = False
        self.clock = nn.Parameter(torch.zeros(()))
        self.stream, self.method = stream, method
        self.plan, self.plans = None, {}
        self.cache = ActivationCache(space)
        self._checked: set[frozenset[str]] = set()
        self._lengths = Lengths()
        self.passes = _passes(method, len(stream.facts.linears), measured, pruned)

    def go_on(self, measured: int, pruned: int) -> None:
        """Leave out what an earlier run has done; without any pass left, the fit ends at once."""
        self.passes = _passes(self.method, len(self.stream.facts.linears), measured, pruned)
        if not self.passes:
            self.trainer.fit_loop.max_epochs = 0

    @property
    def samples_ahead(self) -> int:
        """Number of samples in the batches of the processes before this one."""
        return self.trainer.datamodule.samples_before(self.partition.own[0])  # type: ignore[attr-defined]

    @property
    def now(self) -> Pass:
        """The current pass."""
        return self.passes[self.current_epoch]

    @property
    def skip_forward(self) -> bool:
        """Whether no callback looks at what passes the current block, so that nothing has to pass."""
        if self.current_epoch >= len(self.passes) or self.stream.facts.towers:
            return False
        measured = self.is_dense and bool(self.method.measure_stages)
        return not measured and not self.method.reads_activations

    @property
    def block(self) -> nn.Module:
        """The current block with real weights; the stream keeps it until it is released."""
        return self.stream.load(self.index, dense=self.is_dense)

    @property
    def needs_inputs(self) -> bool:
        """Whether the current epoch starts a walk, i.e. reads samples rather than cached hidden states."""
        return self.current_epoch < len(self.passes) and self.index == 0 and self.is_first_stage

    def setup(self, stage: str) -> None:
        """Take this process's share of the batches."""
        batches = self.trainer.datamodule.batches  # type: ignore[attr-defined]
        self.partition = BatchPartition(batches, self.trainer.global_rank, self.trainer.world_size)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """An optimiser that moves nothing but Lightning's step counter."""
        return torch.optim.SGD([self.clock], lr=0.0)

    def run(self, index: int, batch: CachedBatch) -> Tensor:
        """What block `index` makes of a batch that stands before it."""
        return self.stream.load(index, dense=self.is_dense)(batch.hidden, **batch.kwargs)

    @torch.no_grad()
    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Advance one batch and show it to the current block; with several processes, not every step has a batch."""
        self.no_batch = batch_idx >= len(self.partition.own)
        if not self.no_batch and not self.skip_forward:
            self._pass(batch, batch_idx)
        if self.trainer.is_last_batch:
            optimizer = self.optimizers()
            assert not isinstance(optimizer, list)
            optimizer.step()

    def _pass(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        if self.needs_inputs:
            check_vocabulary(
                self.stream.model, batch["input_ids"], f"calibration batch {self.partition.own[batch_idx]}"
            )
        if self.current_epoch == 0:
            self._lengths.look(self.stream.model, batch)
        self.current = cached = self.embed(batch) if self.needs_inputs else self.cache[batch_idx].to(self.device)
        if not self.is_dense and self.index > 0 and self.is_first_stage:
            self.current = cached = cached.advanced(self.run(self.index - 1, cached))
        if self.is_dense or self.stage != "replay":
            with token_guard(self.block, self.stream.facts.linears[self.index], cached.hidden.shape):
                self.output = self.run(self.index, cached)
        self.cache[batch_idx] = cached.advanced(self.output) if self.is_dense else cached

    @torch.no_grad()
    def embed(self, batch: dict[str, Tensor], watch: AbstractContextManager[None] | None = None) -> CachedBatch:
        """Everything before the blocks; in memory, also check that they can be walked with media of each kind."""
        stream, valid = self.stream, batch["valid"]
        inputs = {k: v for k, v in batch.items() if k not in EXTRAS}
        masked = {**inputs, "attention_mask": valid.long()}
        with watch or nullcontext():
            hidden, calls = record_calls(stream.model, stream.facts.blocks, masked)
        modality = stream.facts.modality(inputs).to(hidden.device)
        unmasked = calls.drop_causal_mask(list(stream.model.get_submodule(stream.facts.blocks).children()), valid)
        # what is ignored is attended to as ever, but enters no statistic
        counted = valid & ~batch["ignored"] if "ignored" in batch else valid
        cached = CachedBatch(
            batch["sample_ids"], hidden, modality, valid, counted, unmasked, unmasked.enter(0, hidden)[1]
        )
        kind = frozenset(inputs)
        if self.current_epoch == 0 and kind not in self._checked and isinstance(stream, MemoryStream):
            self._checked.add(kind)
            self.current = cached
            check_walk(stream.model, stream.facts, masked, hidden, calls)
        return cached

    def on_train_batch_end(self, *_: object) -> None:
        """Let go of the predecessor as soon as the last batch is past it: what follows needs the memory."""
        if self.trainer.is_last_batch and not self.is_dense and self.index > 0 and self.is_first_stage:
            self.stream.release(self.index - 1)

    def on_train_epoch_end(self) -> None:
        """Let go of a block that was only looked at; stop after the last pass."""
        if self.current_epoch == 0:
            self._lengths.tell(self.stream.model)
        if self.is_dense:
            self.stream.release(self.index)
        if self.current_epoch + 1 == len(self.passes):
            self.stream.release(self.index)
            self.cache.clear()
            self.trainer.should_stop = True


def _passes(method: Method, blocks: int, measured: int, pruned: int) -> list[Pass]:
    """Every epoch that is left to do, in order."""

    def over(kind: Walk, first: int, last: int, stages: tuple[Task, ...]) -> list[Pass]:
        dense = kind == "measure" or method.mode == "one_shot"
        return [Pass(kind, index, stage, dense) for index in range(first, last) for stage in stages]

    one_shot = method.mode == "one_shot"
    measure = over("measure", measured, blocks, () if one_shot else method.measure_stages)
    prune = over("prune", pruned, blocks, method.prune_stages)
    # after pruned blocks the dense hidden states are needed too where weights are to come close to what they give
    dense = measured if measure else pruned if prune and method.follows_dense else 0
    replay: tuple[Task, ...] = ("replay",)
    again = over("prune", 0, pruned, replay) if prune else []
    passes = [*over("measure", 0, dense, replay), *measure, *again, *prune]
    places = [None, *((one.kind, one.block) for one in passes), None]
    return [
        replace(one, is_first=places[k] != places[k + 1], is_last=places[k + 2] != places[k + 1])
        for k, one in enumerate(passes)
    ]

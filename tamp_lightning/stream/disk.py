"""A stream over a checkpoint on disk: only the skeleton and the loaded blocks are in memory."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from tamp_lightning.checkpoint.opened import Checkpoint
from tamp_lightning.checkpoint.reader import FLOATS
from tamp_lightning.checkpoint.scales import scales_of
from tamp_lightning.checkpoint.skeleton import compute_dtypes, load_converted, load_skeleton
from tamp_lightning.checkpoint.writer import TOWERS, ShardWriter, refuse_existing
from tamp_lightning.errors import InputError
from tamp_lightning.methods.selection import ALL, Selection
from tamp_lightning.ops.masks import all_finite, keep_where
from tamp_lightning.stream.ahead import Ahead
from tamp_lightning.stream.base import check_pruned
from tamp_lightning.stream.rehearsal import rehearse
from tamp_lightning.stream.stored import by_key, first_other, key_of, merge, write_pieces


class DiskStream:
    """Lends decoder blocks read from ``source``, writes them pruned to ``out``.

    ``out`` becomes a Hugging Face checkpoint with the source's keys, files and dtypes. Tensors that are not
    pruned or trained, and weights that survive unchanged, keep their bytes, whatever dtype was computed in.

    Args:
        source: folder of a safetensors checkpoint.
        out: folder to write; it must not exist or be empty, unless `resumes`.
        dtype: dtype to compute in; None = the checkpoint's.
        device: where the skeleton and the loaded blocks live.
        selection: which linears are pruned.
        resumes: whether an earlier run may have written some of `out` (`resume`).
        ahead: read one block ahead in a thread, which needs memory for one more; None = on a GPU.

    Raises:
        InputError: anything wrong with source, out or patterns, in one line; found before a weight is read.
    """

    writer: ClassVar[type[ShardWriter]] = ShardWriter

    def __init__(
        self,
        source: Path,
        out: Path,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
        selection: Selection = ALL,
        resumes: bool = False,
        ahead: bool | None = None,
    ) -> None:
        source, out = Path(source), Path(out)
        if not resumes:
            refuse_existing(out)
        self.device = torch.device(device)
        self.towers = selection.towers
        opened = Checkpoint.open(source, dtype, selection)
        self.reader, self.model, self._keys = opened.reader, opened.model, opened.keys
        self.facts = rehearse(opened.model, opened.facts)
        self._towers = {linear.name: linear for linear in self.facts.towers}
        parts = {TOWERS: self.facts.towers, **dict(enumerate(self.facts.linears))}
        pruned = {part: list(dict.fromkeys(key_of(linear) for linear in linears)) for part, linears in parts.items()}
        for index in range(len(self.facts.linears)):
            pruned[index] += [self._keys.blocks[index][name] for name in self.scales(index)]
        self._writer = self.writer(self.reader, out, pruned, resumes)
        self._dtypes = compute_dtypes(self.model)
        self._loaded: set[int] = set()
        self._committed: set[int] = set()
        self._checked: set[int] = set()
        wanted = self.device.type == "cuda" if ahead is None else ahead
        self._ahead = Ahead(self._fetch, self.device) if wanted else None
        load_skeleton(self.model, self.reader, self._keys, self.device)

    @property
    def files(self) -> dict[str, str]:
        """Sha256 of every file written so far, by its path relative to the output folder."""
        return dict(self._writer.files)

    def resume(self, finished: int, files: Mapping[str, str], towers: Sequence[str] = ()) -> int:
        """Take what an earlier run committed as committed.

        Args:
            finished: blocks below this number are.
            files: name -> sha256 of what it had written by then.
            towers: names of the linears of towers and projector that are.

        Returns:
            How many of the blocks are still there, towers included; the rest has to be committed again.

        Raises:
            InputError: a file is not what was written.
        """
        put: dict[int, Sequence[str]] = {TOWERS: [key_of(self._towers[name]) for name in towers]} if towers else {}
        first = len(put)
        put |= {index: self._writer.pruned[index] for index in range(finished)}
        there = max(self._writer.resume(put, files) - first, 0)
        self._committed = set(range(there))
        return there

    def load_towers(self, towers: Sequence[str]) -> None:
        """Set linears of towers and projector to what an earlier run committed."""
        linears = [self._towers[name] for name in towers]
        tensors = self.reader.read(map(key_of, linears), self._writer.place)
        for linear in linears:
            linear.weight(self.model).data.copy_(tensors[key_of(linear)])

    def drop_head(self) -> None:
        """Forget the output embeddings, unless they are the input's: pruning never runs them, and they can be large."""
        head, inputs = self.model.get_output_embeddings(), self.model.get_input_embeddings()
        if head is not None and head.weight is not inputs.weight:
            head.to("meta")

    def load(self, index: int, dense: bool = False) -> nn.Module:
        """Return block ``index`` with real weights: the source's, or unless ``dense`` the pruned ones once committed.

        A block that is loaded already comes as it is; release it to change between the two.

        Raises:
            InputError: a prunable weight is NaN or infinite.
        """
        block = self._block(index)
        if index not in self._loaded:
            places = {} if dense else self._writer.place
            made = self._keys.converted[index]
            block.load_state_dict(self._read(index, dense), assign=True, strict=not made)
            if made:
                load_converted(self.model, self.reader, made, self.device, places)
                block.requires_grad_(False)
                self._unmap(index, block)
            self._refuse_non_finite(index, block)
            self._check_stacked(index, block, places)
            self._loaded.add(index)
        return block

    def scales(self, index: int) -> list[str]:
        """Norms' parameters and linears' biases of block ``index`` that are stored as they are used."""
        linears, keys = self.facts.linears[index], self._keys.blocks[index]
        names = scales_of(self._block(index), linears) if linears else []
        return [name for name in names if name in keys and self.reader.info(keys[name]).dtype in FLOATS]

    def release(self, index: int) -> None:
        """Put block ``index`` back to the meta device; what was not committed is forgotten."""
        block = self._block(index)
        empty = {name: torch.empty_like(tensor, device="meta") for name, tensor in block.state_dict().items()}
        block.load_state_dict(empty, assign=True)
        self._loaded.discard(index)

    def commit(self, index: int, masks: Mapping[str, Tensor]) -> None:
        """Take block ``index`` as final and write it (see :class:`tamp_lightning.stream.base.Stream`).

        Linears without a mask, and what is neither linear nor of `scales`, must be unchanged. Where the dtype on disk
        is another one, the block's own weights are set to what was written, so that activations are those of the
        output.

        Raises:
            InputError: the block is not pruned as the masks say, or something without a mask has changed.
            RuntimeError: the block is not loaded, or committed already.
        """
        if index not in self._loaded or index in self._committed:
            state = "is committed already" if index in self._committed else "is not loaded"
            raise RuntimeError(f"block {index} cannot be committed: it {state}")
        block = self._block(index)
        check_pruned(block, f"{self.facts.blocks}.{index}", self.facts.linears[index], masks)
        self._writer.put(index, self._merge(index, block, masks))
        self._committed.add(index)

    @torch.no_grad()
    def commit_towers(self, masks: Mapping[str, Tensor]) -> None:
        """Take towers and projector as final and write them (see :class:`tamp_lightning.stream.base.Stream`).

        As in blocks, weights in memory become what was written.

        Raises:
            InputError: a weight is not pruned as its mask says.
        """
        check_pruned(self.model, "towers and projector", self.facts.towers, masks)
        final: dict[str, Tensor] = {}
        for name, mask in masks.items():
            key, weight = key_of(self._towers[name]), self._towers[name].weight(self.model)
            final[key] = self._final(key, weight.data, mask).cpu()
        self._writer.put(TOWERS, final)

    def finish(self) -> dict[str, str]:
        """Complete the output folder; return the sha256 of every file by its path in it.

        Raises:
            RuntimeError: a block with prunable linears was not committed.
        """
        if self._ahead is not None:
            self._ahead.close()
        return self._writer.finish()

    def _block(self, index: int) -> nn.Module:
        return self.model.get_submodule(f"{self.facts.blocks}.{index}")

    def _read(self, index: int, dense: bool) -> dict[str, Tensor]:
        """A block's tensors on the device; the next one is then on its way."""
        places = self._places(index, dense)
        tensors = self._ahead.take(index, places) if self._ahead is not None else None
        if tensors is None:
            tensors = {name: value.to(self.device) for name, value in self._fetch(index, places).items()}
        if self._ahead is not None and index + 1 < len(self.facts.linears):
            self._ahead.start(index + 1, self._places(index + 1, dense))
        return tensors

    def _places(self, index: int, dense: bool) -> dict[str, Path]:
        """Which of a block's tensors are not where the source has them, and where they are."""
        own = set() if dense else self._keys.blocks[index].values() & self._writer.place.keys()
        return {key: self._writer.place[key] for key in sorted(own)}

    def _fetch(self, index: int, places: Mapping[str, Path]) -> dict[str, Tensor]:
        """A block's tensors on the CPU, in the dtypes that are computed in."""
        keys, path = self._keys.blocks[index], f"{self.facts.blocks}.{index}"
        tensors = self.reader.read(keys.values(), places)
        return {name: tensors.pop(key).to(self._dtypes[f"{path}.{name}"]) for name, key in keys.items()}

    def _unmap(self, index: int, block: nn.Module) -> None:
        """Give converted weights on a CPU memory of their own: where a file has them, products may round otherwise."""
        for name, weight in block.named_parameters():
            if weight.device.type == "cpu" and name not in self._keys.blocks[index]:
                weight.data = weight.data.clone()

    def _refuse_non_finite(self, index: int, block: nn.Module) -> None:
        checked: set[str] = set()
        for linear in self.facts.linears[index]:
            if linear.parameter in checked:
                continue
            checked.add(linear.parameter)
            weight, key = block.get_parameter(linear.parameter), key_of(linear)
            if not all_finite(weight):
                file = self.reader.folder / self.reader.shard_of[key]
                raise InputError(
                    f"{key} in {file} holds NaN or infinite weights (as {weight.dtype}): "
                    "the checkpoint is damaged or does not fit that dtype"
                )

    def _check_stacked(self, index: int, block: nn.Module, places: Mapping[str, Path]) -> None:
        """Make sure that experts stand on disk where they will be written: once per block, at its first load."""
        experts = [linear for linear in self.facts.linears[index] if linear.piece is not None]
        for key, linears in by_key([] if index in self._checked else experts).items():
            if linear := first_other(block, linears, self.reader.read([key], places)[key]):
                raise InputError(
                    f"{linear.full} is not what {key} holds where it was expected, so that it could not be written "
                    "back: load the model with from_pretrained and prune it in memory"
                )
        self._checked.add(index)

    @torch.no_grad()
    def _merge(self, index: int, block: nn.Module, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Key -> final tensor, both as on disk, for every masked weight; the rest must not differ."""
        final: dict[str, Tensor] = {}
        self._refuse_changed(index, block, masks)
        for key, linears in by_key(self.facts.linears[index]).items():
            pruned = [linear for linear in linears if linear.name in masks]
            if len(linears) == 1 and pruned and linears[0].stored is None:
                weight = linears[0].weight(block)
                final[key] = self._final(key, weight.data, masks[linears[0].name]).cpu()
            elif pruned:
                stored = self.reader.read([key])[key]
                final[key] = write_pieces(block, {linear: masks[linear.name] for linear in pruned}, stored)
        for name in self.scales(index):
            key, value = self._keys.blocks[index][name], block.get_parameter(name).data
            final[key] = self._final(key, value, torch.ones_like(value, dtype=torch.bool)).cpu()
        return final

    def _refuse_changed(self, index: int, block: nn.Module, masks: Mapping[str, Tensor]) -> None:
        """Refuse a change of what has no mask."""
        linears, state = self.facts.linears[index], block.state_dict()
        masked = {linear.parameter for linear in linears if linear.name in masks} | set(self.scales(index))
        changed = [
            name
            for name, key in self._keys.blocks[index].items()
            if name not in masked and not torch.equal(state[name], self._source(key).to(state[name].dtype))
        ]
        left = [linear for linear in linears if linear.piece is not None and linear.name not in masks]
        others = (first_other(block, own, self._source(key)) for key, own in by_key(left).items())
        changed += [linear.name for linear in others if linear is not None]
        if changed:
            raise ValueError(f"{self.facts.blocks}.{index}.{changed[0]} was changed but has no mask: it would be lost")

    def _final(self, key: str, computed: Tensor, mask: Tensor) -> Tensor:
        """What is written under ``key`` for a pruned weight, which is set to it."""
        dtype = FLOATS.get(self.reader.info(key).dtype)
        if dtype == computed.dtype:  # then a weight that did not move has the source's bits already
            final = keep_where(computed, mask.to(self.device))
        else:
            final = merge(self._source(key), computed, mask.to(self.device))
        if not all_finite(final):
            raise InputError(f"{key} does not fit {dtype}, its dtype on disk, after pruning")
        computed.copy_(final)
        return final

    def _source(self, key: str) -> Tensor:
        return self.reader.read([key])[key].to(self.device)

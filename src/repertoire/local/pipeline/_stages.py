"""Assignment of blocks to processes, and refusal of what several processes cannot train."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.local._block import LocalBlock, LocalObjective, MethodObjective
from repertoire.local._partition import split_evenly
from repertoire.ops import Memory

__all__ = ["Survey", "bounds_text", "check_followed", "stage_bounds", "survey", "tensors_of"]

PIXELS = {"cpu": 2**16, "cuda": 2**20}
"""Of all images together that the time of a block is measured on; enough to keep the device busy."""


@dataclass(frozen=True)
class Survey:
    """Facts about a block, by which it is given to a process.

    Attributes:
        seconds: a forward and backward pass on some images takes; not as many as a batch has, as only ratios count.
        images: whether its objective looks at the network's input, which then has to be sent along.
    """

    seconds: float
    images: bool


def survey(
    blocks: Sequence[LocalBlock],
    example: Tensor,
    views: int,
    classes: int,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> list[Survey]:
    """Runs copies of the blocks. Nothing in the blocks changes.

    Args:
        blocks: all blocks of the network.
        example: an input, of any batch size.
        views: of each sample.
        classes: number of classes.
        autocast: the precision of the forward pass.

    Raises:
        ConfigError: the loss or the method has state, which would have to be in several processes at once.
    """
    _check_losses(blocks)
    copies = copy.deepcopy(list(blocks))
    count = max(2, min(64, PIXELS.get(example.device.type, 2**16) // max(1, math.prod(example.shape[1:][-2:]) * views)))
    devices = [example.device] if example.device.type == "cuda" else []
    found = []
    with torch.random.fork_rng(devices=devices):
        images = torch.rand(views * count, *example.shape[1:], device=example.device, dtype=example.dtype)
        if example.is_contiguous(memory_format=torch.channels_last) and example.dim() == 4:
            images = images.contiguous(memory_format=torch.channels_last)
        batch = Batch(
            tuple(images.chunk(views)),
            torch.arange(count, device=images.device) % classes,
            torch.arange(count, device=images.device),
        )
        x = images
        for block in copies:
            block.train()
            objective = block.objective
            looks = isinstance(objective, LocalObjective) and objective.auxiliary.looks_at_images
            found.append(Survey(_seconds(block, x, batch, autocast), looks))
            x = block.take().detach()
    return found


def _seconds(
    block: LocalBlock, x: Tensor, batch: Batch, autocast: Callable[[], AbstractContextManager[Any]], repeats: int = 3
) -> float:
    """Fastest of `repeats` forward and backward passes, in seconds: on a CPU of this process, whatever others do."""
    best = math.inf
    for _ in range(repeats):
        start = _clock(x.device)
        with autocast():
            loss, _ = block(x, batch)
        loss.backward()
        block.cross()
        best = min(best, _clock(x.device) - start)
        block.zero_grad(set_to_none=True)
    return best


def _clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


def _check_losses(blocks: Sequence[LocalBlock]) -> None:
    """Refuses what every block would share with all others while it changes."""
    for loss in {id(block.objective.loss): block.objective.loss for block in blocks}.values():
        if isinstance(loss, nn.Module) and any(True for _ in loss.parameters()):
            raise ConfigError(
                f"a pipeline cannot train the loss {type(loss).__name__}: all blocks share its parameters, and they "
                "would differ from process to process"
            )
    for block in blocks:
        owner = block.objective.method if isinstance(block.objective, MethodObjective) else block.objective
        for memory in owner.modules():
            if isinstance(memory, Memory):
                raise ConfigError(
                    f"a pipeline cannot train {type(memory).__name__}: it has a memory, which every process would "
                    "need. Train in one process, or use a loss and a method without memory"
                )


def stage_bounds(seconds: Sequence[float], stages: int) -> list[int]:
    """Bounds of the blocks of each stage, so that the slowest is as fast as it can be: stage s has those from
    `bounds[s]` to `bounds[s + 1]`.

    Raises:
        ConfigError: there are fewer blocks than stages.

    >>> stage_bounds([3, 1, 1, 1], 2)
    [0, 1, 4]
    """
    if stages > len(seconds):
        raise ConfigError(
            f"a pipeline of {stages} processes needs {stages} blocks or more, and there are {len(seconds)}: use "
            f"local:blocks={stages}, or fewer processes"
        )
    return [0, *(end + 1 for end in split_evenly(seconds, stages))]


def check_followed(blocks: Sequence[LocalBlock], bounds: Sequence[int]) -> None:
    """Refuses auxiliary networks that follow the weights of a later stage.

    Raises:
        ConfigError: names the block.
    """
    for index, block in enumerate(blocks):
        if not isinstance(block.objective, LocalObjective):
            continue
        end = next(bound for bound in bounds if bound > index)
        held = {id(p) for later in blocks[:end] for p in later.parameters()}
        network = block.objective.auxiliary
        if any(id(p) not in held for module in network.followed for p in module.parameters()):
            raise ConfigError(
                f"the auxiliary network of block {index + 1} ({type(network).__name__}) follows the weights of a later "
                "block, which another process of the pipeline trains, and a pipeline sends nothing back. Use another "
                "auxiliary network"
            )


def bounds_text(bounds: Sequence[int], stage: int) -> str:
    """The blocks of a stage, for a person: "block 3" or "blocks 3 to 5"."""
    first, last = bounds[stage] + 1, bounds[stage + 1]
    return f"block {first}" if first == last else f"blocks {first} to {last}"


def tensors_of(blocks: Sequence[LocalBlock]) -> Iterator[Tensor]:
    """All parameters and buffers, in a fixed order."""
    for block in blocks:
        yield from block.parameters()
        yield from block.buffers()

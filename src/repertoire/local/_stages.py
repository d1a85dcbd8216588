"""Which process trains which blocks, and what cannot be trained by several."""

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

__all__ = ["Survey", "bounds_text", "check_followed", "stage_bounds", "survey", "tensors_of"]

PIXELS = {"cpu": 2**16, "cuda": 2**20}
"""Of all images together that the time of a block is measured on; enough to keep the device busy."""


@dataclass(frozen=True)
class Survey:
    """What is to be known of a block before it is given to a process.

    Attributes:
        seconds: of a forward and backward pass on some images, not as many as a batch has: only ratios count.
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
    copies = copy.deepcopy(list(blocks))
    _check_losses(copies)
    count = max(2, min(64, PIXELS.get(example.device.type, 2**16) // max(1, math.prod(example.shape[1:][-2:]) * views)))
    devices = [example.device] if example.device.type == "cuda" else []
    found = []
    with torch.random.fork_rng(devices=devices):
        images = torch.rand(views * count, *example.shape[1:], device=example.device, dtype=example.dtype)
        if example.is_contiguous(memory_format=torch.channels_last) and example.dim() == 4:
            images = images.contiguous(memory_format=torch.channels_last)
        seen = Batch(
            tuple(images.chunk(views)),
            torch.arange(count, device=images.device) % classes,
            torch.arange(count, device=images.device),
        )
        blind = Batch(tuple(view.to("meta") for view in seen.views), seen.targets, seen.index)
        x = images
        losses = _losses(copies)
        before = [b.clone() for loss in losses for b in loss.buffers()]
        for block in copies:
            block.train()
            looks = False
            try:
                seconds = _seconds(block, x, blind, autocast)
            except (RuntimeError, NotImplementedError):
                looks = True
                seconds = _seconds(block, x, seen, autocast)
            found.append(Survey(seconds, looks))
            x = block.take()
    if not _same(before, [b for loss in losses for b in loss.buffers()]):
        raise ConfigError(f"a pipeline cannot train {_named(losses)}: it has a memory, which every process would need")
    return found


def _seconds(
    block: LocalBlock, x: Tensor, batch: Batch, autocast: Callable[[], AbstractContextManager[Any]], repeats: int = 3
) -> float:
    """Of a forward and backward pass: the least of some. On a CPU the time of this process, whatever others do."""
    best = math.inf
    for _ in range(repeats):
        start = _clock(x.device)
        with autocast():
            loss, _ = block(x, batch)
        if loss.device != x.device:
            raise RuntimeError("the loss was computed from images that are not there")
        loss.backward()
        best = min(best, _clock(x.device) - start)
        block.zero_grad(set_to_none=True)
    return best


def _clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


def _losses(blocks: Sequence[LocalBlock]) -> list[nn.Module]:
    """What the blocks minimise, each once."""
    found: dict[int, nn.Module] = {}
    for block in blocks:
        objective = block.objective
        loss: Any = None
        if isinstance(objective, LocalObjective):
            loss = objective._loss[0]
        elif isinstance(objective, MethodObjective):
            loss = getattr(objective._method[0], "loss", None)
        else:
            loss = getattr(objective, "loss", None)
        if isinstance(loss, nn.Module):
            found[id(loss)] = loss
    return list(found.values())


def _named(losses: Sequence[nn.Module]) -> str:
    return f"the loss {', '.join(sorted({type(loss).__name__ for loss in losses}))}"


def _check_losses(blocks: Sequence[LocalBlock]) -> None:
    """Refuses what every block would share with all others while it changes. The blocks are copies, and are spoilt."""
    losses = _losses(blocks)
    if any(True for loss in losses for _ in loss.parameters()):
        raise ConfigError(
            f"a pipeline cannot train {_named(losses)}: all blocks share its parameters, and they would differ from "
            "process to process"
        )
    for block in blocks:
        if isinstance(block.objective, MethodObjective):
            method = block.objective._method[0]
            # What follows the weights shows itself when the weights move.
            with torch.no_grad():
                for parameter in method.parameters():
                    parameter.add_(0.01)
            before = [t.clone() for t in (*method.parameters(), *method.buffers())]
            method.after_update()
            if not _same(before, [*method.parameters(), *method.buffers()]):
                raise ConfigError(
                    f"a pipeline cannot train method {type(method).__name__}: after each step it follows the weights "
                    "of the whole network, which no process has"
                )
            with torch.no_grad():
                for parameter in method.parameters():
                    parameter.sub_(0.01)


def _same(before: Sequence[Tensor], after: Sequence[Tensor]) -> bool:
    """Whether nothing changed; NaN is NaN."""
    return len(before) == len(after) and all(
        a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)
        for a, b in zip(before, after, strict=True)
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

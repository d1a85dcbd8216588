"""Steps over blocks: forward, backward and optimiser step of one, then of the next."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_map

from repertoire.data import Batch
from repertoire.errors import ConfigError, NonFiniteLoss, option, plural
from repertoire.local._block import LocalBlock, LocalObjective
from repertoire.local._overlap import OverlapBlock
from repertoire.local.pipeline._channel import dense
from repertoire.local.pipeline._pipeline import Arrival, Pipeline
from repertoire.local.pipeline._stages import tensors_of
from repertoire.ops import seed_torch

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Trainer", "single_process"]


class Trainer:
    """Runs steps over blocks: forward, backward and optimiser step of one block, then of the next.

    A block's graph is gone before the next block begins, and so are its gradients, because its optimiser has used them
    by then. Losses are checked before weights change; on a GPU, where each look would wait for the device, only after
    the step.

    Random numbers (dropout) are drawn from a state that depends on the step and the block alone: a block draws the
    same whether the blocks before it ran in this process or in another.

    Args:
        blocks: in order. They are moved nowhere.
        make_optimizer: builds the optimiser of a block.
        fabric: devices, precision and ranks.
        clip: largest norm of the gradient of one block.
        accumulate: pieces that a batch is processed in. All pieces pass a block before the next block sees any.
        compile: whether torch.compile is to compile each block; a string names its backend.
        pipeline: which processes train which blocks; this one trains all if None. It needs to know:
        example: an input, of any batch size.
        views: of each sample.
        classes: number of classes.

    Attributes:
        held: which blocks this process trains.
        skipped: whether the loss scaler left out the last step of the last block that this process trains.
    """

    skipped = False

    def __init__(
        self,
        blocks: Sequence[LocalBlock],
        make_optimizer: Callable[[nn.Module], torch.optim.Optimizer],
        *,
        fabric: Fabric,
        clip: float | None = None,
        accumulate: int = 1,
        compile: bool | str = False,
        pipeline: Pipeline | None = None,
        example: Tensor | None = None,
        views: int = 1,
        classes: int = 1,
    ) -> None:
        self.blocks = list(blocks)
        self.clip = clip
        self.accumulate = accumulate
        self.pipeline = pipeline
        _check_trainable(self.blocks)
        if accumulate > 1 and not all(network.per_sample for network in self.auxiliaries):
            raise ConfigError(
                "accumulate splits a batch into pieces, and these auxiliary networks compare the samples of a batch "
                "with each other: each piece would be contrasted only with itself. Use a smaller batch, or another "
                "auxiliary network"
            )
        self.held = range(len(self.blocks))
        self._border: OverlapBlock | None = None
        self._due = False
        if pipeline is not None:
            if fabric.world_size > 1:
                fabric = single_process(self.blocks[0], precision=fabric.strategy.precision.precision)
            if fabric.strategy.precision.precision == "16-mixed":
                raise ConfigError(
                    "a pipeline does not work in float16, whose loss scale all blocks share: use "
                    f"{option('precision', 'bf16')}"
                )
            assert example is not None
            self.held = pipeline.open(
                self.blocks,
                example,
                views=views,
                classes=classes,
                accumulate=accumulate,
                autocast=fabric.autocast,
            )
            last = self.blocks[self.held.stop - 1]
            if isinstance(last, OverlapBlock) and last.ahead:
                self._border = last
                last.border = True
        self.fabric = fabric
        self.modules: list[Any] = []
        self.optimizers: list[torch.optim.Optimizer] = []
        self._gathered: dict[int, Any] = {}
        if compile:
            _compile_many(len(self._own))
        for block in self._own:
            if compile:
                backend = compile if isinstance(compile, str) else "inductor"
                block.compile(backend=backend)
            module, optimizer = fabric.setup(block, make_optimizer(block))
            self.modules.append(module)
            self.optimizers.append(optimizer)
        self._normalised = any(isinstance(m, _BatchNorm) for block in self.blocks for m in block.modules())

    @property
    def first(self) -> bool:
        """True where this process has the first block, and so gets the images."""
        return self.held.start == 0

    @property
    def _own(self) -> list[LocalBlock]:
        return self.blocks[self.held.start : self.held.stop]

    def check(self, batch: Batch, pieces: Sequence[Batch]) -> None:
        """Refuses, before any weight changes, what a block would fail at half-way.

        Raises:
            ConfigError: a batch of one meets batch normalisation.
            NonFiniteLoss: weights are NaN or infinite before the step; on a GPU this is not looked at.
        """
        if self._normalised and min(len(piece) * len(piece.views) for piece in pieces) < 2:
            raise ConfigError(
                f"a batch of {plural(len(batch), 'image')} in {plural(len(pieces), 'piece')} is too small for batch "
                "normalisation, which needs two images at a time"
            )
        if self.fabric.device.type != "cpu":
            return
        for index, block in zip(self.held, self._own, strict=True):
            norms = torch._foreach_norm([p.detach() for p in block.parameters()], math.inf)
            if not math.isfinite(sum(norm.item() for norm in norms)):
                where = "" if self.pipeline is None else " in this process"
                raise NonFiniteLoss(f"the weights of {self._named(index)} are not finite; no weight was changed{where}")

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """One step of every block that this process holds.

        Args:
            batch: views and targets; or what the pipeline's `receive` gave, where this process has not the first block.
        """
        if self.pipeline is None:
            return self._step(batch)
        with self.pipeline.guarded():
            return self._step(batch)

    def _step(self, batch: Batch) -> dict[str, Tensor]:
        pieces = list(batch.split(self.accumulate)) if self.accumulate > 1 else [batch]
        self.check(batch, pieces)
        self._gathered = {}
        if isinstance(batch, Arrival):
            flows, seed = batch.flows, batch.seed
        else:
            flows = [torch.cat(piece.views) if len(piece.views) > 1 else piece.images for piece in pieces]
            # One number from the stream of random numbers a step, and a stream of its own for each block.
            seed = int(torch.randint(2**62, ()))
        devices = [self.fabric.device] if self.fabric.device.type == "cuda" else []
        logs: dict[str, Tensor] = {}
        with torch.random.fork_rng(devices=devices):
            flows = self._entered(flows, len(pieces))
            for index in self.held:
                if self.blocks[index] is self._border:
                    self._renew()
                seed_torch(seed + index, self.fabric.device)
                found = self._block(index, flows, pieces, batch)
                if index == self.held.start and index and self.blocks[index].entered:
                    assert self.pipeline is not None
                    self.pipeline.give_back(_weights(self.blocks[index].units[: self.blocks[index].entered]))
                prefix = "" if index == len(self.blocks) - 1 else f"block{index + 1}_"
                logs.update({f"{prefix}{name}": value for name, value in found.items()})
        if self.pipeline is not None:
            self.pipeline.send(batch, seed, flows)
            self._due = self._border is not None
        return logs

    def _entered(self, flows: list[Tensor], pieces: int) -> list[Tensor]:
        """What the units give that the process before has run, too; their gradient is to be that of both blocks."""
        block = self.blocks[self.held.start]
        if not self.held.start or not isinstance(block, OverlapBlock) or not block.entered:
            return flows
        starts, drawn, owed = flows[:pieces], flows[pieces : 2 * pieces], flows[2 * pieces :]
        with self.fabric.autocast():
            found = [block.enter(start, state) for start, state in zip(starts, drawn, strict=True)]
        for flow, gradient in zip(found, owed, strict=False):
            if flow.requires_grad:
                flow.register_hook(functools.partial(_plus, gradient, None, None))
        return found

    def _renew(self, keep: bool = True) -> None:
        """Takes the weights of the units after the border as the last step has left them, with the process after this
        one, which trains them."""
        if not self._due:
            return
        assert self.pipeline is not None
        assert self._border is not None
        found, self._due = self.pipeline.take_back(), False
        if keep:
            with torch.no_grad():
                for mine, new in zip(_weights(self._border.ahead), found, strict=True):
                    mine.copy_(new)

    def _block(self, index: int, flows: list[Tensor], pieces: list[Batch], batch: Batch) -> dict[str, Tensor]:
        place = index - self.held.start
        block, module, optimizer = self.blocks[index], self.modules[place], self.optimizers[place]
        logs: dict[str, Tensor] = {}
        owed: list[Tensor | None] = []
        drawn: list[Tensor] = []
        weight = batch.weight(self.fabric.world_size if self.pipeline is None else self.pipeline.replicas)
        for number, piece in enumerate(pieces):
            share = len(piece) / len(batch)
            with self.fabric.no_backward_sync(module, enabled=number < len(pieces) - 1):
                loss, found = module(flows[number], piece)
                if loss.device.type == "cpu":
                    self._refuse_nonfinite(index, float(loss.detach()))
                self.fabric.backward(loss * (share * weight) if share * weight != 1 else loss)
                owed.append(block.cross())
            if block is self._border:
                assert self._border.drawn is not None
                drawn.append(self._border.drawn)
            flows[number] = block.take() if block.ahead else dense(block.take())
            for name, value in found.items():
                logs[name] = logs.get(name, 0) + value * share
        if self.pipeline is not None:
            self.pipeline.average(block)
        if self.clip is not None:
            self.fabric.clip_gradients(module, optimizer, max_norm=self.clip, error_if_nonfinite=False)
        scaler: Any = getattr(self.fabric.strategy.precision, "scaler", None)
        before = None if scaler is None else scaler.get_scale()
        optimizer.step()
        self.skipped = before is not None and scaler.get_scale() < before
        optimizer.zero_grad(set_to_none=True)
        if block is self._border:
            flows += [*drawn, *(gradient for gradient in owed if gradient is not None)]
        elif not self.skipped:
            for flow, gradient in zip(flows, owed, strict=True):
                if gradient is not None:
                    flow.register_hook(functools.partial(_plus, gradient, scaler, before))
        return logs

    def _refuse_nonfinite(self, index: int, loss: float) -> None:
        if math.isfinite(loss):
            return
        for block, optimizer in zip(self._own, self.optimizers, strict=True):
            block.forget()
            optimizer.zero_grad(set_to_none=True)
        before = f"; blocks 1 to {index} have taken this step" if index else ""
        raise NonFiniteLoss(
            f"the loss of {self._named(index)} became {loss}: its weights were left as they are{before}. Try a lower "
            "learning rate, or clip"
        )

    def _named(self, index: int) -> str:
        names = self.blocks[index].names
        return f"block {index + 1} of {len(self.blocks)} ({names[0]} to {names[-1]})"

    def gather(self, value: Any = None) -> list[Any] | None:
        """Brings the weights of all processes of a pipeline to the first, and what their optimisers keep.

        Args:
            value: anything more to bring there; tensors on the CPU.

        Returns:
            The values of all stages, on the first process of the first replica; None elsewhere.
        """
        if self.pipeline is None:
            return [value]
        mine: Any = None
        if not self.pipeline.first:
            weights = [tensor.detach().cpu() for tensor in tensors_of(self._own)]
            states = [
                tree_map(lambda leaf: leaf.cpu() if isinstance(leaf, Tensor) else leaf, optimizer.state_dict())
                for optimizer in self.optimizers
            ]
            mine = (weights, states)
        with self.pipeline.guarded():
            self._renew()
            found = self.pipeline.gather((mine, value))
        if found is None:
            return None
        bounds = self.pipeline.bounds
        for stage, (theirs, _) in enumerate(found[1:], start=1):
            start, stop = bounds[stage], bounds[stage + 1]
            with torch.no_grad():
                for tensor, new in zip(tensors_of(self.blocks[start:stop]), theirs[0], strict=True):
                    tensor.copy_(new)
            self._gathered.update(zip(range(start, stop), theirs[1], strict=True))
        return [other for _, other in found]

    def optimizer_states(self) -> list[dict[str, Any]]:
        """The state of the optimiser of every block.

        Raises:
            ConfigError: other processes hold some of them, and they have not been gathered since the last step.
        """
        own = dict(zip(self.held, self.optimizers, strict=True))
        missing = [i for i in range(len(self.blocks)) if i not in own and i not in self._gathered]
        if missing:
            raise ConfigError(
                f"other processes of the pipeline hold block {missing[0] + 1}: all must call gather() first, and the "
                "first process then has everything"
            )
        return [own[i].state_dict() if i in own else self._gathered[i] for i in range(len(self.blocks))]

    def held_states(self, states: Sequence[Any]) -> list[Any]:
        """States of the blocks that are of this process. What was still to come of the weights is of no account now."""
        self._renew(keep=False)
        return [states[index] for index in self.held]

    def follow(self) -> None:
        """Lets auxiliary networks follow the weights, once all have changed."""
        for block in self._own:
            if isinstance(block.objective, LocalObjective):
                block.objective.auxiliary.follow()

    @property
    def auxiliaries(self) -> nn.ModuleList:
        """The auxiliary networks, in order; the last block of the network has none."""
        found = [b.objective.auxiliary for b in self.blocks if isinstance(b.objective, LocalObjective)]
        return nn.ModuleList(found)


def single_process(model: nn.Module, precision: Any = "32-true") -> Fabric:
    """A fabric for one process, on the device of the model."""
    from lightning_fabric import Fabric

    device = next(model.parameters()).device
    devices = 1 if device.index is None else [device.index]
    return Fabric(accelerator=device.type, devices=devices, precision=precision)


def _check_trainable(blocks: Sequence[LocalBlock]) -> None:
    """Refuses a block in which nothing can be trained.

    Raises:
        ConfigError: names it.
    """
    for index, block in enumerate(blocks):
        if not any(parameter.requires_grad for parameter in block.parameters()):
            raise ConfigError(
                f"block {index + 1} of {len(blocks)} ({block.names[0]} to {block.names[-1]}) has no parameters to "
                "train: all of them are frozen. Cut elsewhere (at=...), or into fewer blocks"
            )


def _weights(units: Iterable[nn.Module]) -> list[Tensor]:
    """Weights of units, frozen ones as well."""
    return [parameter.detach() for unit in units for parameter in unit.parameters()]


def _plus(owed: Tensor, scaler: Any, scale: float | None, gradient: Tensor) -> Tensor:
    """A gradient, and what the block before has left for it, at the loss scale that it has now."""
    return gradient + (owed if scale is None or scaler.get_scale() == scale else owed * (scaler.get_scale() / scale))


def _compile_many(count: int) -> None:
    """Lets the compiler work on so many blocks: they share their code, and it gives up on code that it has compiled for
    more than eight objects."""
    from torch._dynamo import config

    # PyTorch 2.6 has it under its first name.
    name = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"
    setattr(config, name, max(getattr(config, name), 8 + 2 * count))

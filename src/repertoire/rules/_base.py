"""The contract of learning rules, and what all of them need: optimiser, precision, clipping, ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from repertoire import registry
from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.losses import compare_across_ranks
from repertoire.methods import Method
from repertoire.ops import discard_memories
from repertoire.ranges import checked
from repertoire.rules._sharded import divided, is_sharded, share_buffers

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from repertoire.methods import Classifier

__all__ = ["MakeOptimizer", "Rule", "called"]

MakeOptimizer = Callable[[nn.Module], torch.optim.Optimizer]
"""Builds the optimiser of a module; a rule may call it once, or once for each part of the network."""


def called(kind: str, thing: object) -> str:
    """Name of a component for a message: the registered one in quotes, or that of its class."""
    found = next((entry.name for entry in registry.entries(kind) if entry.factory is type(thing)), None)
    return type(thing).__name__ if found is None else repr(found)


class Rule:
    """`rule.step(method, batch) -> logs`: turns a batch into changed weights.

    `setup` is called once, before the first step. Between two steps a rule holds nothing but its optimisers: a batch is
    split into `accumulate` pieces inside a step, so that a checkpoint is complete after any of them.

    A rule declares what it requires of a method, and `check` compares that with what the method declares.

    Attributes:
        requires: "objective" for a rule that runs the network in pieces of its own and gives the method what came out;
            "whole" for one that calls the method's step.
        labels: whether it learns from the class of each sample itself, so that the method must have them.
        parts: whether it trains a method that has several parts, each with a loss of its own.
        pieces_alike: whether it does the same with each of the pieces of a batch, so that two stand for many.
        supports_pipeline: whether several processes can share one network (`setup(pipeline=...)`).
        supports_sharding: whether it trains a method whose weights are divided among the processes (FSDP).

    Example, in a loop of one's own:
        >>> from repertoire.rules import Backprop
        >>> rule = Backprop()
        >>> rule.setup(method, lambda module: torch.optim.SGD(module.parameters(), lr=0.1))  # doctest: +SKIP
        >>> logs = rule.step(method, batch)  # doctest: +SKIP
    """

    requires: ClassVar[Literal["whole", "objective"]] = "whole"
    labels: ClassVar[bool] = False
    parts: ClassVar[bool] = False
    pieces_alike: ClassVar[bool] = False
    supports_pipeline: ClassVar[bool] = False
    supports_sharding: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__init__" in vars(cls):
            cls.__init__ = checked(cls.__init__)  # type: ignore[method-assign]

    def check(self, method: Method, *, accumulate: int = 1) -> None:
        """Refuses a method that this rule cannot train, before anything is built.

        Args:
            method: what would be trained.
            accumulate: pieces that a batch would be processed in.

        Raises:
            ConfigError: names both, why they do not go together, and what does.
        """
        needs = method.needs
        pair = f"rule {called('rules', self)} cannot train method {called('methods', method)}"
        if self.requires == "objective" and needs.step != "objective":
            raise ConfigError(
                f"{pair}: the rule runs the network itself and gives the method its features, and this method makes a "
                "step of its own. Use rule backprop, checkpoint or sam"
            )
        if self.labels and needs.labels != "required":
            raise ConfigError(f"{pair}: the rule learns from labels, and the method does without. Use rule backprop")
        if self.labels and needs.targets and "classes" not in needs.targets:
            raise ConfigError(
                f"{pair} with this loss: the rule learns from the class of each sample, and the loss from "
                f"{' or '.join(sorted(needs.targets))}. Use rule backprop, or cross-entropy"
            )
        parts = method.parts()
        if len(parts) > 1 and not self.parts:
            raise ConfigError(
                f"{pair}: the method has parts with losses of their own ({', '.join(parts)}), which are not to be "
                "added up. Use rule alternating"
            )
        if accumulate > 1 and not needs.per_sample:
            way = "gradcache" if needs.step == "objective" else "checkpoint"
            raise ConfigError(
                "accumulate splits a batch into pieces, and the loss of a batch is not the mean of theirs in method "
                f"{called('methods', method)}: samples are compared with each other, something is drawn once for all "
                f"of them, or losses are added up. Use rule {way}, a smaller batch_size, or a loss with reduction=mean"
            )

    def setup(
        self,
        method: Method,
        make_optimizer: MakeOptimizer,
        *,
        fabric: Fabric | None = None,
        clip: float | None = None,
        accumulate: int = 1,
        example: Tensor | None = None,
        pipeline: Any = None,
        gather: bool = True,
    ) -> None:
        """Binds the rule to a method.

        Args:
            method: what to train, on its device.
            make_optimizer: builds the optimiser of a module.
            fabric: devices, precision and ranks; one process in float32 if None.
            clip: largest norm of the gradient; no clipping if None.
            accumulate: pieces that a batch is processed in, for batches too large for the memory. Batch
                normalisation sees one piece at a time.
            example: images of the shape that training will see, on the method's device, for rules that must know it.
            pipeline: the processes that share the network (`repertoire.local.Pipeline`); None for this one alone.
            gather: under several ranks, losses that compare samples compare those of all
                (:func:`repertoire.losses.compare_across_ranks`); else those of each rank.

        Raises:
            ConfigError: the rule cannot train this method (`check`), or knows no pipeline.
        """
        self.check(method, accumulate=accumulate)
        if pipeline is not None and not self.supports_pipeline:
            raise ConfigError(
                f"rule {called('rules', self)} knows no pipeline, in which no part of the network may wait for those "
                "after it: use local:blocks=8"
            )
        self.fabric = _one_process(method) if fabric is None else fabric
        self.clip = clip
        self.accumulate = accumulate
        self._build(method, make_optimizer)
        # After what a rule tries out in one process alone.
        if gather and (self.fabric.world_size if pipeline is None else pipeline.replicas) > 1:
            compare_across_ranks(method, None if pipeline is None else pipeline.peers)

    def _build(self, method: Method, make_optimizer: MakeOptimizer) -> None:
        """Makes optimisers, and wraps the method for the devices."""
        if is_sharded(self.fabric):
            # The optimiser is that of the shares, which are there only then.
            self.module = self.fabric.setup_module(method)
            self.optimizer: Any = self.fabric.setup_optimizers(make_optimizer(method))
            return
        self.module, self.optimizer = self.fabric.setup(method, make_optimizer(method))

    @property
    def optimizers(self) -> list[torch.optim.Optimizer]:
        """The optimisers, in a fixed order; the loop sets their learning rates and stores their state."""
        return [self.optimizer]

    def step(self, method: Method, batch: Batch) -> dict[str, Tensor]:
        """Changes the weights once; gives the method's logs."""
        raise NotImplementedError

    def exits(self, model: Classifier, example: Tensor) -> nn.Module | None:
        """A classifier with the early exits that this rule trains, their weights fresh; None for a rule without.

        Args:
            model: the classifier; its modules are shared.
            example: images of the shape that it takes.
        """
        return None

    def gather(self, value: Any = None) -> list[Any] | None:
        """Brings, in a pipeline, weights and optimiser states of all processes to the first; all of them call it.

        Args:
            value: anything more to bring there; tensors on the CPU.

        Returns:
            The values of all stages on the first process of the first replica, None elsewhere; `[value]` where a
            network is in one process.
        """
        return [value]

    def held(self, method: Method) -> set[str]:
        """The names of the method's tensors that this process trains: all, unless a pipeline shares the network."""
        return set(method.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """State of the optimisers, and of the loss scaler where float16 has one."""
        return {
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "precision": self.fabric.strategy.precision.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` gave."""
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
            for parameter, held in optimizer.state.items():
                for name, value in held.items():
                    # In the memory layout of its parameter (channels last), as it was before it was stored: mixed
                    # layouts are slow on a GPU.
                    if isinstance(value, Tensor) and value.shape == parameter.shape:
                        held[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(divided(value, parameter))
        self.fabric.strategy.precision.load_state_dict(state["precision"])

    def _gradients(self, method: Method, batch: Batch) -> dict[str, Tensor]:
        """Forward and backward over the pieces of a batch: leaves the mean gradient in the parameters."""
        logs: dict[str, Tensor] = {}
        if is_sharded(self.fabric):
            share_buffers(method)
        with self._pieces(method, batch) as pieces:
            for piece, share, last in pieces:
                with self.fabric.no_backward_sync(self.module, enabled=not last):
                    step = self.module(piece)
                    self.fabric.backward(self._scaled(step.loss, share, batch))
                add_logs(logs, {"loss": step.loss.detach(), **step.logs}, share)
        return logs

    @contextmanager
    def _pieces(self, method: Method, batch: Batch) -> Iterator[Iterable[tuple[Batch, float, bool]]]:
        """Each piece, its share of the batch, and whether it is the last.

        What a method does to a batch before the network sees it is done to the whole one, and not again to its pieces:
        how samples are mixed is drawn once a step, and a sample may be mixed with any other.
        """
        if self.accumulate == 1:
            yield [(batch, 1.0, True)]
            return
        pieces = list(replace(method.transform(batch), transformed=True).split(self.accumulate))
        yield [(piece, len(piece) / len(batch), number == len(pieces)) for number, piece in enumerate(pieces, 1)]

    def _scaled(self, loss: Tensor, share: float, batch: Batch) -> Tensor:
        """The loss of a piece as a part of that of the batch, and the batch as a part of what all ranks have: gradients
        are averaged over ranks, which may have unequally many samples."""
        factor = share * batch.weight(self.fabric.world_size)
        return loss * factor if factor != 1 else loss

    def _update(self, method: Method) -> None:
        """Clips, steps, clears the gradients, and lets the method follow."""
        if self.clip is not None:
            self.fabric.clip_gradients(self.module, self.optimizer, max_norm=self.clip, error_if_nonfinite=False)
        with self._followed(method):
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    @contextmanager
    def _followed(self, method: Method) -> Iterator[None]:
        """Around the steps of the optimisers: lets the method follow the weights, unless there was nothing to follow.

        In float16 the loss scaler leaves out a step whose gradients overflowed, and lowers its scale. The method then
        neither commits what it saw nor moves a teacher: for it, this step did not happen.
        """
        scaler: Any = getattr(self.fabric.strategy.precision, "scaler", None)
        before = None if scaler is None else scaler.get_scale()
        yield
        if before is not None and scaler.get_scale() < before:
            discard_memories(method)
        else:
            method.after_update()

    def _average(self, parameters: Iterable[nn.Parameter]) -> None:
        """Averages gradients over the ranks, in one message, where no wrapper does it."""
        if self.fabric.world_size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = self.fabric.all_reduce(torch.cat([g.flatten() for g in gradients]), reduce_op="mean")
        assert isinstance(flat, Tensor)
        for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))


def add_logs(logs: dict[str, Tensor], found: dict[str, Tensor], share: float) -> None:
    """Adds the logs of a piece to those of the batch."""
    for name, value in found.items():
        logs[name] = logs.get(name, 0) + value * share


def _one_process(method: Method) -> Fabric:
    """A fabric for one process in float32, on the device of the method."""
    from lightning_fabric import Fabric

    device = next(method.parameters()).device
    return Fabric(accelerator=device.type, devices=1 if device.index is None else [device.index])

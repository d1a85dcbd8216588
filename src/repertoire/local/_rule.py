"""Local learning as a rule of the trainer."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.local._block import LocalObjective
from repertoire.local._build import build_blocks, method_blocks
from repertoire.local._checks import check_labels, check_partition
from repertoire.local._exits import Exits
from repertoire.local._overlap import reached
from repertoire.local._partition import Balance, head_apart, partition
from repertoire.local._trainer import Trainer
from repertoire.local._units import chain_of
from repertoire.local.pipeline._stages import tensors_of
from repertoire.methods import Classifier, Method
from repertoire.ops import discard_memories
from repertoire.ranges import AtLeast
from repertoire.registry import register
from repertoire.rules import MakeOptimizer, Rule, called

__all__ = ["BlockRule", "Local"]


class BlockRule(Rule):
    """Base of rules that train a network in gradient-isolated blocks.

    Args:
        blocks: how many blocks; "all" for as many as the network has.
        auxiliary: spec of the auxiliary networks, in parentheses if it has several options.
        at: units to cut after, such as `(blocks.3,blocks.6)`, instead of a number of blocks.
        balance: what the blocks have alike: "memory", "time" or "count".
        compile: compile each block with torch.compile.
        overlap: how many units of the next block the loss of each is taken behind; 0 for none.

    Attributes:
        head_apart: whether pooling and head are a block of their own; otherwise they belong to the last one.
    """

    requires = "objective"
    supports_pipeline = True
    head_apart = False

    def __init__(
        self,
        blocks: int | Literal["all"] = 4,
        auxiliary: str = "auglocal",
        at: tuple[str, ...] = (),
        balance: Balance = "memory",
        compile: bool = False,
        overlap: Annotated[int, AtLeast(0)] = 0,
    ) -> None:
        self.blocks: int | Literal["all"] = blocks
        self.auxiliary = auxiliary
        self.at = at
        self.balance: Balance = balance
        self.compile = compile
        self.overlap = overlap

    def check(self, method: Method, *, accumulate: int = 1) -> None:
        super().check(method, accumulate=accumulate)
        if method.block_loss is None:
            raise ConfigError(
                f"rule {called('rules', self)} cannot train method {called('methods', method)}: the rule gives every "
                "block a loss of its own, and the method has none that a block could be trained by alone. Use rule "
                "backprop, checkpoint or sam, or method embedding"
            )

    def setup(
        self, method: Method, make_optimizer: MakeOptimizer, *, example: Tensor | None = None, **options: Any
    ) -> None:
        """See `Rule.setup`."""
        if example is None:
            raise ConfigError(f"rule {called('rules', self)} must know the shape of the images: give setup an example")
        self._example = example
        self._pipeline = options.get("pipeline")
        super().setup(method, make_optimizer, example=example, **options)

    def _build(self, method: Method, make_optimizer: MakeOptimizer) -> None:
        example = self._example
        found = method_blocks(
            method,
            example,
            self.blocks,
            self.auxiliary,
            self.at,
            self.balance,
            apart=self.head_apart,
            overlap=self.overlap,
        )
        self.classes = method.model.head.num_classes
        self.trainer = Trainer(
            found,
            make_optimizer,
            fabric=self.fabric,
            clip=self.clip,
            accumulate=self.accumulate,
            compile=self.compile,
            pipeline=self._pipeline,
            example=example,
            views=method.needs.view_count,
            classes=self.classes,
        )
        self.fabric = self.trainer.fabric
        method.add_module("local", self.trainer.auxiliaries)
        method.train(method.training)

    @property
    def optimizers(self) -> list[torch.optim.Optimizer]:
        return self.trainer.optimizers

    def step(self, method: Method, batch: Batch) -> dict[str, Tensor]:
        if not method.training:
            raise ConfigError("the method is in eval mode; call train() before a step")
        if not batch.targets.is_floating_point() and batch.targets.dim() == 1:
            check_labels(batch.targets, self.classes, lowest=0 if method.needs.labels == "required" else -1)
        if self.trainer.first:
            batch = method.transform(batch)
        if self.labels and (batch.targets.dim() != 1 or batch.targets.is_floating_point()):
            raise ConfigError(
                f"rule {called('rules', self)} learns from the class of each sample, and the batch has targets "
                f"{batch.targets.dtype} {list(batch.targets.shape)}: use rule local or backprop, or mix=none"
            )
        logs = self.trainer.step(batch)
        # What a method remembers is seen by the last block, and of no account where that one's step was left out.
        if self.trainer.skipped:
            discard_memories(method)
        else:
            method.after_update()
        self.trainer.follow()
        return logs

    @property
    def partition(self) -> list[list[str]]:
        """The names of the units of each block."""
        return [list(block.names) for block in self.trainer.blocks]

    def held(self, method: Method) -> set[str]:
        own = {id(tensor) for tensor in tensors_of([self.trainer.blocks[index] for index in self.trainer.held])}
        return {name for name, tensor in method.state_dict(keep_vars=True).items() if id(tensor) in own}

    def gather(self, value: Any = None) -> list[Any] | None:
        return self.trainer.gather(value)

    def exits(self, model: Classifier, example: Tensor) -> Exits:
        chain = chain_of(model, example)
        ends = partition(chain, self.blocks, at=self.at, balance=self.balance)
        if self.head_apart:
            ends = head_apart(chain, ends)
        blocks = build_blocks(
            chain, ends, self.auxiliary, model.head.num_classes, F.cross_entropy, nn.Identity(), self.overlap
        )
        found = [block.objective.auxiliary for block in blocks if isinstance(block.objective, LocalObjective)]
        return Exits(chain, reached(ends, self.overlap), nn.ModuleList(found))

    def state_dict(self) -> dict[str, Any]:
        states = {
            "optimizers": self.trainer.optimizer_states(),
            "precision": self.fabric.strategy.precision.state_dict(),
        }
        return {**states, "partition": self.partition}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        check_partition(state.get("partition", []), self.partition)
        super().load_state_dict({**state, "optimizers": self.trainer.held_states(state["optimizers"])})


@register("rules", "local")
class Local(BlockRule):
    """Local learning: the network in gradient-isolated blocks, each with an auxiliary network and a loss of its own.

    See :class:`repertoire.local.LocalLearning` for the papers, the formula and what is saved. The auxiliary networks
    become the method's module `local`, so that checkpoints and moving averages hold them; what is exported is the
    network alone.

    Args:
        blocks: how many blocks; "all" for as many as the network has.
        auxiliary: spec of the auxiliary networks, in parentheses if it has several options.
        at: units to cut after, such as `(blocks.3,blocks.6)`, instead of a number of blocks.
        balance: what the blocks have alike: "memory", "time" or "count".
        compile: compile each block with torch.compile.
        overlap: how many units of the next block the loss of each block is taken behind, so that it learns what they
            can use; 0 (default) for none, and no more than the next block has. It takes memory and time, which
            :class:`repertoire.local.LocalLearning` reckons.

    Raises:
        ConfigError: at setup, where the method has no loss for a block or its network cannot be cut so; where a loss
            cannot be shared by blocks; the images' shape is not known.

    Example:
        >>> from repertoire.local import Local
        >>> Local(blocks=8, auxiliary="auglocal:depth=2").blocks
        8
    """

    @classmethod
    def example_options(cls) -> dict[str, Any]:
        """Options for an example of a small network and batch, where the defaults do not do."""
        return {"blocks": 2, "auxiliary": "linear"}

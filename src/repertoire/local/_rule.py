"""Local learning as a rule of the trainer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.local._block import LocalObjective
from repertoire.local._build import build_blocks, method_blocks
from repertoire.local._checks import check_labels, check_partition
from repertoire.local._exits import Exits
from repertoire.local._partition import Balance, head_apart, partition
from repertoire.local._pipeline import Pipeline
from repertoire.local._stages import tensors_of
from repertoire.local._trainer import Trainer, single_process
from repertoire.local._units import chain_of
from repertoire.methods import Classifier, Method
from repertoire.registry import register
from repertoire.rules import MakeOptimizer, Rule

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Local"]


@register("rules", "local")
class Local(Rule):
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

    Raises:
        ConfigError: the method's network cannot be cut so; the images' shape is not known.

    Example:
        >>> from repertoire.local import Local
        >>> Local(blocks=8, auxiliary="auglocal:depth=2").blocks
        8
    """

    head_apart = False
    """Whether pooling and head are a block of their own; otherwise they belong to the last one."""

    def __init__(
        self,
        blocks: int | Literal["all"] = 4,
        auxiliary: str = "auglocal",
        at: tuple[str, ...] = (),
        balance: Balance = "memory",
        compile: bool = False,
    ) -> None:
        self.blocks: int | Literal["all"] = blocks
        self.auxiliary = auxiliary
        self.at = at
        self.balance: Balance = balance
        self.compile = compile

    def setup(
        self,
        method: Method,
        make_optimizer: MakeOptimizer,
        *,
        fabric: Fabric | None = None,
        clip: float | None = None,
        accumulate: int = 1,
        example: Tensor | None = None,
        pipeline: Pipeline | None = None,
    ) -> None:
        """See `Rule.setup`; and `pipeline`, the processes that train the blocks together, or None for this one."""
        self._check_separable(method, accumulate)
        if example is None:
            raise ConfigError("rule 'local' must know the shape of the images: give setup an example")
        fabric = fabric or single_process(method)
        found = method_blocks(
            method, example, self.blocks, self.auxiliary, self.at, self.balance, apart=self.head_apart
        )
        self.classes = method.model.head.num_classes
        self.trainer = Trainer(
            found,
            make_optimizer,
            fabric=fabric,
            clip=clip,
            accumulate=accumulate,
            compile=self.compile,
            pipeline=pipeline,
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
        check_labels(batch.targets, self.classes, lowest=0 if method.needs.labels == "required" else -1)
        logs = self.trainer.step(batch)
        method.after_update()
        self.trainer.follow()
        return logs

    @property
    def partition(self) -> list[list[str]]:
        """The names of the units of each block."""
        return [list(block.names) for block in self.trainer.blocks]

    def held(self, method: Method) -> set[str]:
        """The names of the method's tensors that belong to the blocks of this process."""
        own = {id(tensor) for tensor in tensors_of([self.trainer.blocks[index] for index in self.trainer.held])}
        return {name for name, tensor in method.state_dict(keep_vars=True).items() if id(tensor) in own}

    def exits(self, model: Classifier, example: Tensor) -> Exits:
        """A classifier with the exits that this rule trains, their weights fresh.

        Args:
            model: the classifier; its modules are shared.
            example: images of the shape that it takes.
        """
        chain = chain_of(model, example)
        ends = partition(chain, self.blocks, at=self.at, balance=self.balance)
        if self.head_apart:
            ends = head_apart(chain, ends)
        blocks = build_blocks(chain, ends, self.auxiliary, model.head.num_classes, F.cross_entropy, nn.Identity())
        found = [block.objective.auxiliary for block in blocks if isinstance(block.objective, LocalObjective)]
        return Exits(chain, ends, nn.ModuleList(found))

    def state_dict(self) -> dict[str, Any]:
        states = {
            "optimizers": self.trainer.optimizer_states(),
            "precision": self.fabric.strategy.precision.state_dict(),
        }
        return {**states, "partition": self.partition}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        try:
            check_partition(state.get("partition", []), self.partition)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        super().load_state_dict({**state, "optimizers": self.trainer.held_states(state["optimizers"])})

"""Training a network block by block, with one block's activations alive at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire import registry
from repertoire.data import Batch
from repertoire.errors import ConfigError, ShapeError
from repertoire.local._block import LocalObjective, TailObjective
from repertoire.local._build import AuxiliarySpec, Blocks, build_blocks, chain_outputs, check_covered
from repertoire.local._checks import check_labels, check_partition, check_shapes
from repertoire.local._overlap import reached
from repertoire.local._partition import Balance, check_unshared, head_apart, partition
from repertoire.local._trainer import Trainer, single_process
from repertoire.local._units import chain_of
from repertoire.local.auxiliaries._base import LocalLoss
from repertoire.local.pipeline._pipeline import Pipeline
from repertoire.ops import commit_memories, discard_memories

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["LocalLearning"]


class LocalLearning:
    r"""Trains any network block by block, each by a loss of its own, in a loop of one's own.

    The network is cut into K blocks. Block k maps :math:`h_{k-1}` to :math:`h_k`, and an auxiliary network
    :math:`a_k` turns :math:`h_k` into class scores. Each minimises its own loss

    .. math:: \mathcal L_k = \ell\big(a_k(h_k), y\big), \qquad h_k = f_k(\operatorname{sg}[h_{k-1}])

    with sg the stop-gradient; the last block minimises the loss of the whole network. Forward pass, backward pass and
    optimiser step of a block are done before the next block begins, so that only one block's activations and gradients
    are alive at a time (Ma et al., *Scaling Supervised Local Learning with Augmented Auxiliary Networks*, ICLR 2024;
    Belilovsky et al., *Greedy Layerwise Learning Can Scale to ImageNet*, ICML 2019).

    What the first block does not keep, later blocks cannot use. With `overlap` of o units the gradient of a block's
    loss crosses one border: with :math:`g_{k+1}` the first o units of block k + 1 (all of it, if it has fewer),

    .. math:: \mathcal L_k = \ell\big(a_k(g_{k+1}(h_k)), y\big), \qquad k < K,

    and the weights of :math:`g_{k+1}`, which there is once, get the gradients of both losses that pass through it, as
    in Xiong, Ren and Urtasun, *LoCo: Local Contrastive Representation Learning* (NeurIPS 2020). Its forward pass is
    run once. Its backward pass is linear in the gradient that it starts from, so it runs in two halves: that of its
    maps alone, which goes on into block k, and in the next step that of maps and weights, for the sum of the two
    gradients at its output. Let F(g) be the operations of a forward pass and A(g) the bytes that one keeps. Then a
    border costs F(g) more operations, where a step of the units takes about 3 F(g) in any case (a second copy of the
    units would cost 3 F(g), and to run both losses through them 2 F(g)); normalisation and activations, which do not
    count as operations and cost time all the same, are passed backwards twice. At the peak of a step of block k there
    are A(g) bytes more, and three maps of the size of the border: the gradients that wait at both ends of the block,
    and the one that enters it. In pieces (`accumulate`) the activations of g are those of the whole batch, because no
    piece enters the next block before all have left this one.

    Args:
        model: any network that gives logits `[N, K]` and can be cut: one of Repertoire's, an `nn.Sequential`, or any
            module that can be traced. It is trained in place, and stays what it is: nothing is added to it.
        blocks: how many blocks, 4 by default; "all" for as many as the network can be cut into.
        auxiliary: spec of the auxiliary networks ("auglocal:depth=2", "linear"), or a function that makes one for its
            `repertoire.local.Site`.
        optimizer: builds the optimiser of a block, `lambda block: torch.optim.SGD(block.parameters(), lr=0.1)`.
        loss: a loss on logits or on embeddings, or anything called with logits and labels; cross-entropy if None.
        example: an input, of any batch size, on the model's device; the shapes are taken from it. If None, blocks are
            built at the first step, from the images that it gets.
        at: names of units to cut after, instead of a number of blocks.
        balance: what the blocks have alike: "memory", "time" or "count". See `repertoire.local.partition`.
        head_apart: make pooling and head a block of their own, where they do not belong to a unit: in Repertoire's own
            networks, whose head is otherwise trained together with the last block.
        fabric: devices, precision and ranks, from lightning-fabric; one process in float32 if None.
        clip: largest norm of the gradient of one block; no clipping if None.
        accumulate: pieces that a batch is processed in, for batches too large for the memory.
        compile: compile each block with torch.compile; a string names the backend.
        pipeline: the processes that train the blocks together, see `repertoire.local.Pipeline`; this one alone if None.
            Give an example with it.
        overlap: o, how many units of the next block the loss of a block is taken behind; 0 (default) for none. The cuts
            are those without it. Exits are behind the overlap. Units that overlap are not compiled. In a pipeline those
            at the border of two processes are run by both, and their weights are sent back after each step.

    Raises:
        ConfigError: the network cannot be cut so, or shares weights between blocks; at a step, a model in eval mode,
            or a batch of one where there is batch normalisation; a loss that blocks cannot share, because it has a
            memory or needs to know more than labels.
        ShapeError: labels that the network has no output for.
        NonFiniteLoss: the loss of a block became NaN or infinite; the block is named, and keeps its weights.

    Example:
        >>> import torch
        >>> from repertoire.local import LocalLearning
        >>> net = torch.nn.Sequential(
        ...     torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3, padding=1),
        ...     torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 10))
        >>> sgd = lambda block: torch.optim.SGD(block.parameters(), lr=0.1)
        >>> learner = LocalLearning(net, blocks=2, auxiliary="linear", optimizer=sgd)
        >>> logs = learner.step(torch.rand(16, 3, 32, 32), torch.arange(16) % 10)
        >>> sorted(logs)
        ['accuracy', 'block1_accuracy', 'block1_loss', 'loss']
    """

    def __init__(
        self,
        model: nn.Module,
        blocks: Blocks = 4,
        auxiliary: AuxiliarySpec = "auglocal",
        optimizer: Callable[[nn.Module], torch.optim.Optimizer] | None = None,
        *,
        loss: LocalLoss | None = None,
        example: Tensor | None = None,
        at: Sequence[str] = (),
        balance: Balance = "memory",
        head_apart: bool = False,
        fabric: Fabric | None = None,
        clip: float | None = None,
        accumulate: int = 1,
        compile: bool | str = False,
        pipeline: Pipeline | None = None,
        overlap: int = 0,
    ) -> None:
        if optimizer is None:
            raise ConfigError(
                "say how to build the optimiser of a block: optimizer=lambda block: SGD(block.parameters())"
            )
        self.model = model
        self.blocks = blocks
        self.auxiliary = auxiliary
        self.at = tuple(at)
        self.balance: Balance = balance
        if overlap < 0:
            raise ConfigError(f"overlap is {overlap}; expected 0 units of the next block, or more")
        self.overlap = overlap
        self.head_apart = head_apart
        self.loss: LocalLoss = F.cross_entropy if loss is None else loss
        wanted = getattr(self.loss, "wants", ())
        if wanted:
            raise ConfigError(
                f"the loss {type(self.loss).__name__} needs the {' and the '.join(wanted)} of every sample, and a step "
                "of local learning is told images and labels only: use another loss, or rule backprop"
            )
        self._make_optimizer = optimizer
        self._options: dict[str, Any] = {"clip": clip, "accumulate": accumulate, "compile": compile}
        self.pipeline = pipeline
        if pipeline is not None and example is None:
            raise ConfigError("a pipeline must know the shape of its input beforehand: give an example")
        self._fabric = fabric
        self._trainer: Trainer | None = None
        if not callable(auxiliary):
            registry.get("auxiliaries", (registry.parse(auxiliary) if isinstance(auxiliary, str) else auxiliary).name)
        if example is not None:
            self.build(example)

    def build(self, example: Tensor) -> None:
        """Cuts the network and builds auxiliary networks and optimisers, for inputs of the shape of the example."""
        chain = chain_of(self.model, example[:2])
        ends = partition(chain, self.blocks, at=self.at, balance=self.balance)
        if self.head_apart:
            ends = head_apart(chain, ends)
        check_unshared(chain, ends)
        self.classes = chain_outputs(chain, example[:2])
        blocks = build_blocks(
            chain, ends, self.auxiliary, self.classes, self.loss, TailObjective(chain.tail, self.loss), self.overlap
        )
        check_covered(self.model, blocks)
        self.chain, self.ends = chain, reached(ends, self.overlap)
        fabric = self._fabric or single_process(self.model)
        self._trainer = Trainer(
            blocks,
            self._make_optimizer,
            fabric=fabric,
            pipeline=self.pipeline,
            example=example,
            classes=self.classes,
            **self._options,
        )
        self.auxiliaries.train(self.model.training)

    @property
    def trainer(self) -> Trainer:
        """The engine that runs the blocks.

        Raises:
            ConfigError: nothing has been built yet.
        """
        if self._trainer is None:
            raise ConfigError("the network has not been cut yet: give an example, or take a step first")
        return self._trainer

    @property
    def optimizers(self) -> list[torch.optim.Optimizer]:
        """The optimiser of each block, in a pipeline of each that this process holds."""
        return self.trainer.optimizers

    @property
    def auxiliaries(self) -> nn.ModuleList:
        """The auxiliary networks of all blocks but the last."""
        return self.trainer.auxiliaries

    @property
    def partition(self) -> list[list[str]]:
        """The names of the units of each block."""
        return [list(block.names) for block in self.trainer.blocks]

    def train(self) -> None:
        """Puts model and auxiliary networks into training mode."""
        self.model.train()
        self.auxiliaries.train()

    def eval(self) -> None:
        """Puts model and auxiliary networks into eval mode."""
        self.model.eval()
        self.auxiliaries.eval()

    def step(self, images: Tensor | None = None, labels: Tensor | None = None) -> dict[str, Tensor]:
        """Changes the weights of every block once, in a pipeline of those that this process holds.

        Args:
            images: what the network takes, `[N, ...]`. In a pipeline only the first process takes images and labels;
                the others get them from the one before.
            labels: int64 `[N]`.

        Returns:
            `loss` and `accuracy` of the network, and `block1_loss`, `block1_accuracy`, ... of the blocks before the
            last, detached, from before the change.
        """
        batch = self._arrived(images, labels) if self.pipeline and not self.pipeline.first else None
        if batch is None:
            batch = self._batch(images, labels)
        logs = self.trainer.step(batch)
        if isinstance(self.loss, nn.Module):
            (discard_memories if self.trainer.skipped else commit_memories)(self.loss)
        self.trainer.follow()
        return logs

    def _arrived(self, images: Tensor | None, labels: Tensor | None) -> Batch:
        assert self.pipeline is not None
        if images is not None or labels is not None:
            raise ConfigError("only the first process of a pipeline takes images: call step() without, elsewhere")
        self._check_mode()
        return self.pipeline.receive()

    def _batch(self, images: Tensor | None, labels: Tensor | None) -> Batch:
        if images is None or labels is None:
            raise ConfigError("a step takes images and labels")
        if labels.shape != images.shape[:1] or labels.is_floating_point():
            raise ShapeError(
                f"labels must be integers [{len(images)}], one for each image; found {labels.dtype} "
                f"{list(labels.shape)}"
            )
        if self._trainer is None:
            self._check_mode()
            self.build(images)
        self._check_mode()
        check_labels(labels, self.classes)
        return Batch((images,), labels, torch.arange(len(labels), device=labels.device))

    def _check_mode(self) -> None:
        if not self.model.training:
            raise ConfigError("the model is in eval mode; call train() before a step")
        if self._trainer is not None and not all(network.training for network in self.auxiliaries):
            raise ConfigError(
                "auxiliary networks are in eval mode, and the model is not: call train() of the learner before a step"
            )

    def gather(self) -> None:
        """Brings, in a pipeline, the weights of all processes to the first, and what `state_dict` wants of them. All
        processes call it."""
        self.trainer.gather()

    @torch.no_grad()
    def exits(self, images: Tensor) -> list[Tensor]:
        """Logits `[N, K]` of each block: what the auxiliary networks say, then the network itself."""
        x, found = images, []
        for block in self.trainer.blocks:
            x = block.run(x)
            objective = block.objective
            if isinstance(objective, LocalObjective):
                found.append(objective.auxiliary(block.look(x)))
            else:
                assert isinstance(objective, TailObjective)
                found.append(objective.tail(x))
        return found

    def state_dict(self) -> dict[str, Any]:
        """Auxiliary networks, optimisers and partition; the model's own weights are in the model."""
        return {
            "partition": self.partition,
            "auxiliaries": self.auxiliaries.state_dict(),
            "optimizers": self.trainer.optimizer_states(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` gave. In a pipeline every process loads all of it, and the model's weights too.

        Raises:
            ConfigError: it was cut differently, or has other auxiliary networks. Nothing has been loaded then.
        """
        check_partition(state["partition"], self.partition)
        check_shapes(state["auxiliaries"], self.auxiliaries)
        self.auxiliaries.load_state_dict(state["auxiliaries"])
        for optimizer, saved in zip(self.optimizers, self.trainer.held_states(state["optimizers"]), strict=True):
            optimizer.load_state_dict(saved)

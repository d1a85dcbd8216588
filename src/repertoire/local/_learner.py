"""Training a network block by block, with one block's activations alive at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_map

from repertoire import registry
from repertoire.data import Batch
from repertoire.errors import ConfigError, NonFiniteLoss, ShapeError
from repertoire.local._auxiliary import Auxiliary, LocalLoss, Site
from repertoire.local._block import LocalBlock, LocalObjective, MethodObjective, TailObjective
from repertoire.local._channel import dense
from repertoire.local._partition import Balance, check_unshared, head_apart, partition
from repertoire.local._pipeline import Arrival, Pipeline
from repertoire.local._stages import tensors_of
from repertoire.local._units import Chain, chain_of
from repertoire.methods import Method

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["LocalLearning", "Trainer", "build_blocks"]

Blocks = int | Literal["all"]


def build_blocks(
    chain: Chain, ends: Sequence[int], auxiliary: str | registry.Spec, classes: int, loss: LocalLoss, last: nn.Module
) -> list[LocalBlock]:
    """The blocks of a chain, each but the last with a fresh auxiliary network on the device of its units.

    Args:
        chain: the network.
        ends: the last unit of each block; see `head_apart` for a last block without units.
        auxiliary: spec of the auxiliary networks.
        classes: number of classes.
        loss: what every block minimises.
        last: objective of the last block.
    """
    blocks, start = [], 0
    for index, end in enumerate(ends):
        units = chain.units[start : end + 1]
        objective = last
        if index < len(ends) - 1:
            site = Site(
                index=index,
                count=len(ends),
                unit=end,
                units=len(chain.units),
                shape=units[-1].shape,
                maps=chain.maps,
                following=chain.units[end + 1 :],
                image=chain.image,
                classes=classes,
                own=units,
            )
            network: Auxiliary = registry.build("auxiliaries", auxiliary, site=site)
            objective = LocalObjective(_placed(network, units[-1].module), loss)
        names = [unit.name for unit in units] or ["head"]
        blocks.append(LocalBlock([unit.module for unit in units], names, objective))
        start = end + 1
    return blocks


def _placed(network: Auxiliary, module: nn.Module) -> Auxiliary:
    """The network where the module is, and as it lies in memory: where layouts meet, maps are copied."""
    parameters = list(module.parameters())
    network = network.to(device=parameters[0].device, dtype=parameters[0].dtype)
    last = torch.channels_last
    if any(p.dim() == 4 and p.is_contiguous(memory_format=last) and not p.is_contiguous() for p in parameters):
        network = network.to(memory_format=last)  # type: ignore[call-overload]
    return network


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
    """

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
        if accumulate > 1 and not all(network.separable for network in self.auxiliaries):
            raise ConfigError(
                "accumulate splits a batch into pieces, and these auxiliary networks compare the samples of a batch "
                "with each other: each piece would be contrasted only with itself. Use a smaller batch, or another "
                "auxiliary network"
            )
        self.held = range(len(self.blocks))
        if pipeline is not None:
            if fabric.world_size > 1:
                fabric = single_process(self.blocks[0], precision=fabric.strategy.precision.precision)
            if fabric.strategy.precision.precision == "16-mixed":
                raise ConfigError(
                    "a pipeline does not work in float16, whose loss scale all blocks share: use --precision bf16"
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
        self.fabric = fabric
        self.modules: list[Any] = []
        self.optimizers: list[torch.optim.Optimizer] = []
        self._gathered: dict[int, Any] = {}
        for block in self._own:
            if compile:
                backend = compile if isinstance(compile, str) else "inductor"
                block.compile(backend=backend)
            module, optimizer = fabric.setup(block, make_optimizer(block))
            self.modules.append(module)
            self.optimizers.append(optimizer)
        self._normalised = any(isinstance(m, _BatchNorm) for block in self.blocks for m in block.modules())

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
                f"a batch of {len(batch)} image(s) in {len(pieces)} piece(s) is too small for batch normalisation, "
                "which needs two images at a time"
            )
        if self.fabric.device.type != "cpu":
            return
        for index, block in zip(self.held, self._own, strict=True):
            norms = torch._foreach_norm([p.detach() for p in block.parameters()], math.inf)
            if not math.isfinite(sum(norm.item() for norm in norms)):
                raise NonFiniteLoss(f"the weights of {self._named(index)} are not finite; no weight was changed")

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
            for index in self.held:
                torch.manual_seed(seed + index)
                found = self._block(index, flows, pieces, batch)
                prefix = "" if index == len(self.blocks) - 1 else f"block{index + 1}_"
                logs.update({f"{prefix}{name}": value for name, value in found.items()})
        if self.pipeline is not None:
            self.pipeline.send(batch, seed, flows)
        return logs

    def _block(self, index: int, flows: list[Tensor], pieces: list[Batch], batch: Batch) -> dict[str, Tensor]:
        place = index - self.held.start
        block, module, optimizer = self.blocks[index], self.modules[place], self.optimizers[place]
        logs: dict[str, Tensor] = {}
        for number, piece in enumerate(pieces):
            share = len(piece) / len(batch)
            with self.fabric.no_backward_sync(module, enabled=number < len(pieces) - 1):
                loss, found = module(flows[number], piece)
                if loss.device.type == "cpu":
                    self._refuse_nonfinite(index, float(loss.detach()))
                self.fabric.backward(loss * share if share != 1 else loss)
            flows[number] = dense(block.take())
            for name, value in found.items():
                logs[name] = logs.get(name, 0) + value * share
        if self.pipeline is not None:
            self.pipeline.average(block)
        if self.clip is not None:
            self.fabric.clip_gradients(module, optimizer, max_norm=self.clip, error_if_nonfinite=False)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return logs

    def _refuse_nonfinite(self, index: int, loss: float) -> None:
        if math.isfinite(loss):
            return
        for block, optimizer in zip(self._own, self.optimizers, strict=True):
            block.output = None
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
        """Those of the states of all blocks that are of this process."""
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


class LocalLearning:
    r"""Trains any network block by block, each by a loss of its own, in a loop of one's own.

    The network is cut into K blocks. Block k maps :math:`h_{k-1}` to :math:`h_k`, and an auxiliary network
    :math:`a_k` turns :math:`h_k` into class scores. Each minimises its own loss

    .. math:: \mathcal L_k = \ell\big(a_k(h_k), y\big), \qquad h_k = f_k(\operatorname{sg}[h_{k-1}])

    with sg the stop-gradient; the last block minimises the loss of the whole network. Forward pass, backward pass and
    optimiser step of a block are done before the next block begins, so that only one block's activations and gradients
    are alive at a time (Ma et al., *Scaling Supervised Local Learning with Augmented Auxiliary Networks*, ICLR 2024;
    Belilovsky et al., *Greedy Layerwise Learning Can Scale to ImageNet*, ICML 2019).

    Args:
        model: any network that gives logits `[N, K]` and can be cut: one of Repertoire's, an `nn.Sequential`, or any
            module that can be traced. It is trained in place, and stays what it is: nothing is added to it.
        blocks: how many blocks, 4 by default; "all" for as many as the network can be cut into.
        auxiliary: spec of the auxiliary networks: "auglocal:depth=2", "linear", ...
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

    Raises:
        ConfigError: the network cannot be cut so, or shares weights between blocks; at a step, a model in eval mode,
            or a batch of one where there is batch normalisation.
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
        auxiliary: str = "auglocal",
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
        self.head_apart = head_apart
        self.loss: LocalLoss = F.cross_entropy if loss is None else loss
        self._make_optimizer = optimizer
        self._options: dict[str, Any] = {"clip": clip, "accumulate": accumulate, "compile": compile}
        self.pipeline = pipeline
        if pipeline is not None and example is None:
            raise ConfigError("a pipeline must know the shape of its input beforehand: give an example")
        self._fabric = fabric
        self._trainer: Trainer | None = None
        registry.get("auxiliaries", registry.parse(auxiliary).name)
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
            chain, ends, self.auxiliary, self.classes, self.loss, TailObjective(chain.tail, self.loss)
        )
        check_covered(self.model, blocks)
        self.chain, self.ends = chain, ends
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
        """What runs the blocks.

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
        """In a pipeline: brings the weights of all processes to the first one, and what `state_dict` wants of them. All
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
                found.append(objective.auxiliary(x))
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


def check_partition(saved: Sequence[Sequence[str]], present: Sequence[Sequence[str]]) -> None:
    """Refuses a state that belongs to another partition.

    Raises:
        ConfigError: says how both were cut.
    """
    if [list(names) for names in saved] != [list(names) for names in present]:

        def show(cut: Sequence[Sequence[str]]) -> str:
            return f"{len(cut)} blocks ({', '.join(names[-1] for names in cut)})"

        raise ConfigError(f"the state is of a network cut into {show(saved)}, and this one has {show(present)}")


def check_shapes(saved: Mapping[str, Tensor], auxiliaries: nn.ModuleList) -> None:
    """Refuses a state of other auxiliary networks.

    Raises:
        ConfigError: names the first tensor that does not fit.
    """
    present = auxiliaries.state_dict()
    for name in sorted(saved.keys() | present.keys()):
        mine, theirs = present.get(name), saved.get(name)
        if mine is None or theirs is None or mine.shape != theirs.shape:
            found = ["absent" if tensor is None else str(list(tensor.shape)) for tensor in (theirs, mine)]
            raise ConfigError(
                f"the state has other auxiliary networks: {name} is {found[0]} in it, and {found[1]} here. Build the "
                "learner with the auxiliary networks that it was saved with"
            )


def check_labels(labels: Tensor, classes: int, lowest: int = 0) -> None:
    """Refuses labels that the network has no output for. On a GPU the kernels check it.

    Args:
        labels: int64 `[N]`.
        classes: number of classes.
        lowest: -1 where samples may be without a label.

    Raises:
        ShapeError: names the range that was found.
    """
    if labels.device.type == "cpu" and len(labels):
        low, high = int(labels.min()), int(labels.max())
        if low < lowest or high >= classes:
            raise ShapeError(
                f"labels must be {lowest} to {classes - 1}, for the network's {classes} outputs; found {low} to {high}"
            )


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


def check_covered(model: nn.Module, blocks: Sequence[LocalBlock]) -> None:
    """Refuses a network with parameters that no block would train.

    Raises:
        ConfigError: names them.
    """
    held = {id(p) for block in blocks for p in block.parameters()}
    left = [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in held]
    if left:
        raise ConfigError(
            f"no block trains {', '.join(left[:5])}{', ...' if len(left) > 5 else ''}: cut, they are not used"
        )


def chain_outputs(chain: Chain, example: Tensor) -> int:
    """Number of class scores that a network gives.

    Raises:
        ConfigError: its output is not `[N, K]`.
    """
    tail = chain.tail
    modes = [(m, m.training) for m in tail.modules()]
    last = chain.units[-1].shape
    with torch.no_grad():
        tail.eval()
        found = tail(torch.zeros(len(example), *last, device=example.device, dtype=example.dtype))
    for module, mode in modes:
        module.training = mode
    if found.dim() != 2:
        raise ConfigError(f"the network gives {list(found.shape)}; local learning needs class scores [N, K]")
    return int(found.shape[1])


def single_process(model: nn.Module, precision: Any = "32-true") -> Fabric:
    """A fabric for one process, on the device of the model."""
    from lightning_fabric import Fabric

    device = next(model.parameters()).device
    devices = 1 if device.index is None else [device.index]
    return Fabric(accelerator=device.type, devices=devices, precision=precision)


def method_blocks(
    method: Method,
    example: Tensor,
    blocks: Blocks,
    auxiliary: str,
    at: Sequence[str],
    balance: Balance,
    *,
    apart: bool = False,
) -> list[LocalBlock]:
    """The blocks of a method's network; the last minimises what the method does. `apart`: the head is a block too.

    Raises:
        ConfigError: the network cannot be cut so, or the method trains more than its network and what follows it.
    """
    if type(method).objective is Method.objective:
        raise ConfigError(
            f"method {type(method).__name__} cannot be trained locally: it does not say what it makes of features "
            "(Method.objective)"
        )
    chain = chain_of(method.model, example)
    ends = partition(chain, blocks, at=at, balance=balance)
    if apart:
        ends = head_apart(chain, ends)
    check_unshared(chain, ends)
    loss = getattr(method, "loss", F.cross_entropy)
    classes = chain_outputs(chain, example)
    backbone = method.model.backbone
    own = nn.ModuleList([child for name, child in backbone.named_children() if name != "blocks"])
    found = build_blocks(chain, ends, auxiliary, classes, loss, MethodObjective(method, own))
    check_covered(method, found)
    return found

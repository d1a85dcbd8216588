"""Training a network block by block, with one block's activations alive at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from repertoire import registry
from repertoire.data import Batch
from repertoire.errors import ConfigError, NonFiniteLoss, ShapeError
from repertoire.local._auxiliary import Auxiliary, LocalLoss, Site
from repertoire.local._block import LocalBlock, LocalObjective, MethodObjective, TailObjective
from repertoire.local._partition import Balance, check_unshared, partition
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
        ends: the last unit of each block.
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
            following = chain.units[end + 1 :]
            site = Site(
                index, len(ends), end, len(chain.units), units[-1].shape, chain.maps, following, chain.image, classes
            )
            network: Auxiliary = registry.build("auxiliaries", auxiliary, site=site)
            like = next(units[-1].module.parameters())
            objective = LocalObjective(network.to(device=like.device, dtype=like.dtype), loss)
        blocks.append(LocalBlock([unit.module for unit in units], [unit.name for unit in units], objective))
        start = end + 1
    return blocks


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
        first: number of the first of these blocks in the network, where a process holds only some.
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
        first: int = 0,
        total: int | None = None,
    ) -> None:
        self.fabric = fabric
        self.blocks = list(blocks)
        self.clip = clip
        self.accumulate = accumulate
        self.first = first
        self.total = len(self.blocks) if total is None else total
        self.modules: list[Any] = []
        self.optimizers: list[torch.optim.Optimizer] = []
        for block in self.blocks:
            if compile:
                backend = compile if isinstance(compile, str) else "inductor"
                block.compile(backend=backend)
            module, optimizer = fabric.setup(block, make_optimizer(block))
            self.modules.append(module)
            self.optimizers.append(optimizer)
        self._normalised = any(isinstance(m, _BatchNorm) for block in self.blocks for m in block.modules())

    def check(self, batch: Batch) -> None:
        """Refuses, before any weight changes, what a block would fail at half-way.

        Raises:
            ConfigError: a batch of one meets batch normalisation.
        """
        if len(batch) * len(batch.views) // self.accumulate < 2 and self._normalised:
            raise ConfigError(
                f"a batch of {len(batch)} image(s) in {self.accumulate} piece(s) is too small for batch normalisation, "
                "which needs two images at a time"
            )

    def step(
        self, batch: Batch, images: Tensor | None = None, send: Callable[[list[Tensor]], None] | None = None
    ) -> dict[str, Tensor]:
        """One step of every block.

        Args:
            batch: views, targets.
            images: what enters the first of these blocks, where that is not the views.
            send: called with the last block's output, piece by piece, as soon as it is there.
        """
        self.check(batch)
        pieces = list(batch.split(self.accumulate)) if self.accumulate > 1 else [batch]
        if images is None:
            flows = [torch.cat(piece.views) if len(piece.views) > 1 else piece.images for piece in pieces]
        else:
            flows = list(images.split([len(piece) * len(piece.views) for piece in pieces]))
        # One number from the stream of random numbers a step, and a stream of its own for each block.
        seed = int(torch.randint(2**62, ()))
        devices = [self.fabric.device] if self.fabric.device.type == "cuda" else []
        logs: dict[str, Tensor] = {}
        with torch.random.fork_rng(devices=devices):
            for index, module in enumerate(self.modules):
                torch.manual_seed(seed + self.first + index)
                found = self._block(index, module, flows, pieces, batch)
                number = self.first + index + 1
                prefix = "" if number == self.total else f"block{number}_"
                logs.update({f"{prefix}{name}": value for name, value in found.items()})
        if send is not None:
            send(flows)
        return logs

    def _block(
        self, index: int, module: Any, flows: list[Tensor], pieces: list[Batch], batch: Batch
    ) -> dict[str, Tensor]:
        block, optimizer = self.blocks[index], self.optimizers[index]
        logs: dict[str, Tensor] = {}
        for number, piece in enumerate(pieces):
            share = len(piece) / len(batch)
            with self.fabric.no_backward_sync(module, enabled=number < len(pieces) - 1):
                loss, found = module(flows[number], piece)
                if loss.device.type == "cpu":
                    self._refuse_nonfinite(index, float(loss.detach()))
                self.fabric.backward(loss * share if share != 1 else loss)
            flows[number] = block.take()
            for name, value in found.items():
                logs[name] = logs.get(name, 0) + value * share
        if self.clip is not None:
            self.fabric.clip_gradients(module, optimizer, max_norm=self.clip, error_if_nonfinite=False)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return logs

    def _refuse_nonfinite(self, index: int, loss: float) -> None:
        if math.isfinite(loss):
            return
        number = self.first + index + 1
        names = self.blocks[index].names
        for block, optimizer in zip(self.blocks, self.optimizers, strict=True):
            block.output = None
            optimizer.zero_grad(set_to_none=True)
        before = f"; blocks 1 to {number - 1} have taken this step" if number > 1 else ""
        raise NonFiniteLoss(
            f"the loss of block {number} of {self.total} ({names[0]} to {names[-1]}) became {loss}: its weights were "
            f"left as they are{before}. Try a lower learning rate, or clip"
        )

    def follow(self) -> None:
        """Lets auxiliary networks follow the weights, once all have changed."""
        for block in self.blocks:
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
        fabric: devices, precision and ranks, from lightning-fabric; one process in float32 if None.
        clip: largest norm of the gradient of one block; no clipping if None.
        accumulate: pieces that a batch is processed in, for batches too large for the memory.
        compile: compile each block with torch.compile; a string names the backend.

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
        fabric: Fabric | None = None,
        clip: float | None = None,
        accumulate: int = 1,
        compile: bool | str = False,
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
        self.loss: LocalLoss = F.cross_entropy if loss is None else loss
        self._make_optimizer = optimizer
        self._options: dict[str, Any] = {"clip": clip, "accumulate": accumulate, "compile": compile}
        self._fabric = fabric
        self._trainer: Trainer | None = None
        registry.get("auxiliaries", registry.parse(auxiliary).name)
        if example is not None:
            self.build(example)

    def build(self, example: Tensor) -> None:
        """Cuts the network and builds auxiliary networks and optimisers, for inputs of the shape of the example."""
        chain = chain_of(self.model, example[:2])
        ends = partition(chain, self.blocks, at=self.at, balance=self.balance)
        check_unshared(chain, ends)
        self.classes = chain_outputs(chain, example[:2])
        blocks = build_blocks(
            chain, ends, self.auxiliary, self.classes, self.loss, TailObjective(chain.tail, self.loss)
        )
        check_covered(self.model, blocks)
        self.chain, self.ends = chain, ends
        fabric = self._fabric or single_process(self.model)
        self._trainer = Trainer(blocks, self._make_optimizer, fabric=fabric, **self._options)
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
        """The optimiser of each block."""
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

    def step(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Changes the weights of every block once.

        Args:
            images: what the network takes, `[N, ...]`.
            labels: int64 `[N]`.

        Returns:
            `loss` and `accuracy` of the network, and `block1_loss`, `block1_accuracy`, ... of the blocks before the
            last, detached, from before the change.
        """
        if labels.shape != images.shape[:1] or labels.is_floating_point():
            raise ShapeError(
                f"labels must be integers [{len(images)}], one for each image; found {labels.dtype} "
                f"{list(labels.shape)}"
            )
        if not self.model.training:
            raise ConfigError("the model is in eval mode; call train() before a step")
        if self._trainer is None:
            self.build(images)
        check_labels(labels, self.classes)
        logs = self.trainer.step(Batch((images,), labels, torch.arange(len(labels), device=labels.device)))
        self.trainer.follow()
        return logs

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
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` gave.

        Raises:
            ConfigError: it was cut differently.
        """
        check_partition(state["partition"], self.partition)
        self.auxiliaries.load_state_dict(state["auxiliaries"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
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


def check_labels(labels: Tensor, classes: int) -> None:
    """Refuses labels that the network has no output for. On a GPU the kernels check it.

    Raises:
        ShapeError: names the range that was found.
    """
    if labels.device.type == "cpu" and len(labels):
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= classes:
            raise ShapeError(
                f"labels must be 0 to {classes - 1}, for the network's {classes} outputs; found {low} to {high}"
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


def single_process(model: nn.Module) -> Fabric:
    """A fabric for one process, on the device of the model."""
    from lightning_fabric import Fabric

    device = next(model.parameters()).device
    return Fabric(accelerator=device.type, devices=1 if device.index is None else [device.index])


def method_blocks(
    method: Method, example: Tensor, blocks: Blocks, auxiliary: str, at: Sequence[str], balance: Balance
) -> list[LocalBlock]:
    """The blocks of a method's network; the last minimises what the method does.

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
    check_unshared(chain, ends)
    loss = getattr(method, "loss", F.cross_entropy)
    classes = chain_outputs(chain, example)
    backbone = method.model.backbone
    own = nn.ModuleList([child for name, child in backbone.named_children() if name != "blocks"])
    found = build_blocks(chain, ends, auxiliary, classes, loss, MethodObjective(method, own))
    check_covered(method, found)
    return found

"""aTLAS: task vectors put together with a learned factor for each tensor, or each block, of each vector."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.ranges import AtLeast, Positive, checked
from repertoire.registry import register
from repertoire.weights._batchnorm import first_of, images_of, refresh_batchnorm
from repertoire.weights._pace import Pace
from repertoire.weights._progress import Learning, Progress
from repertoire.weights._state import State, check_alike
from repertoire.weights._task_vector import TaskVector
from repertoire.weights._wide import check_base, combined, tensor_by_tensor

__all__ = ["Anisotropic", "anisotropic"]

Objective = Literal["cross-entropy", "entropy"]

STATISTICS = 512
"""Samples that batch statistics are measured on while factors are learned."""

_LEARNED = "factors"
"""Under which name the middle of learning is kept."""

LEAST = 0.5
"""Share of the first marginal entropy below which learning by entropy stops."""


class Anisotropic(nn.Module):
    r"""A network between several fine-tuned ones, of which only how far it goes towards each is learned.

    Zhang et al., *Knowledge Composition using Task Vectors with Learned Anisotropic Scaling* (2024). For each block b
    of the weights and each task vector :math:`\tau_i` there is one number,

    .. math::
        \theta^{(b)} = \theta_0^{(b)} + \sum_i \lambda_i^{(b)}\, \tau_i^{(b)}

    The weights of the network never change. Its gradient with regard to a coefficient is the inner product of that of
    the weights with the vector: :math:`\partial L / \partial \lambda_i^{(b)} = \langle \nabla_{\theta^{(b)}} L,
    \tau_i^{(b)} \rangle`.

    Args:
        network: takes inputs to logits; it lends its structure and what the vectors have not (another head, statistics
            of batch normalisation), and is left as it is. Kept in evaluation mode.
        vectors: task vectors, of the same names; what is no parameter of the network is left out.
        base: the weights before fine-tuning.
        partition: what has a coefficient of its own: "tensor" (default, as in the paper), "module" (weight and bias
            together), "whole" (one for each vector), or a number of shares into which the entries of each tensor are
            divided by a seed, for more coefficients.
        seed: of the shares.

    Attributes:
        coefficients: float32 `[vectors, blocks]`, or `[vectors, tensors * shares]`. Zeros at first, as in the paper:
            the base.

    Raises:
        ConfigError: there are no vectors, or none of their tensors is a parameter of the network.
        CheckpointError: the base lacks tensors of the vectors.

    Example:
        >>> import torch
        >>> from repertoire.weights import Anisotropic, TaskVector
        >>> base = {"weight": torch.zeros(1, 2), "bias": torch.zeros(1)}
        >>> vector = TaskVector({"weight": torch.ones(1, 2), "bias": torch.ones(1)}, base)
        >>> net = Anisotropic(torch.nn.Linear(2, 1), [vector], base)
        >>> with torch.no_grad():
        ...     net.coefficients[0] = torch.tensor([2.0, -1.0])
        >>> net(torch.ones(1, 2)).item()
        3.0
    """

    def __init__(
        self,
        network: nn.Module,
        vectors: Sequence[Mapping[str, Tensor]],
        base: State,
        partition: Literal["tensor", "module", "whole"] | int = "tensor",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not vectors:
            raise ConfigError("vectors is empty; there is nothing to put together")
        parameters = dict(network.named_parameters())
        self.names = [name for name in vectors[0] if name in parameters]
        if not self.names:
            raise ConfigError("the task vectors have no tensor that is a parameter of the network")
        check_base({name: parameters[name] for name in self.names}, base)
        self._network = [network.eval()]  # in a list, so that its parameters are not those of this module
        self._base = {name: base[name].detach().to(parameters[name]) for name in self.names}
        self._changes = {
            name: torch.stack([vector[name].detach().to(parameters[name]) for vector in vectors]) for name in self.names
        }
        self._shares: dict[str, Tensor] = {}
        if isinstance(partition, int):
            generator = torch.Generator().manual_seed(seed)
            for name, start in self._base.items():
                drawn = torch.randint(partition, start.shape, generator=generator)
                self._shares[name] = drawn.to(start.device)
            self._blocks = {name: number * partition for number, name in enumerate(self.names)}
            count = partition * len(self.names)
        else:
            keys = {"tensor": lambda name: name, "module": lambda name: name.rpartition(".")[0], "whole": lambda _: ""}
            blocks: dict[str, int] = {}
            self._blocks = {name: blocks.setdefault(keys[partition](name), len(blocks)) for name in self.names}
            count = len(blocks)
        device = self._base[self.names[0]].device
        self.coefficients = nn.Parameter(torch.zeros(len(vectors), count, device=device))

    def weights(self) -> dict[str, Tensor]:
        """The weights at the coefficients as they are, through which gradients flow to these."""
        made = {}
        for name, start in self._base.items():
            changes, block = self._changes[name], self._blocks[name]
            if self._shares:
                factors = self.coefficients[:, block + self._shares[name]].to(changes)
                made[name] = start + (factors * changes).sum(0)
            else:
                made[name] = start + torch.tensordot(self.coefficients[:, block].to(changes), changes, 1)
        return made

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = functional_call(self._network[0], self.weights(), (inputs,))
        return outputs

    def train(self, mode: bool = True) -> Anisotropic:
        """The network inside stays in evaluation mode: its statistics are those that it has."""
        self.training = mode
        return self

    def fit(
        self,
        batches: Callable[[], Iterable[Batch | tuple[Tensor, Tensor]]],
        *,
        objective: Objective = "cross-entropy",
        steps: int = 100,
        rate: float = 0.01,
        least: float = LEAST,
    ) -> list[float]:
        """Learns the coefficients.

        Adam, with a learning rate that falls along a cosine, and gradients clipped at a norm of 1, as in the released
        code, which also decays the coefficients. With "entropy", no label is looked at: predictions are made sure of
        themselves. That alone is best done by naming one class for everything, so learning stops, and goes back to the
        best coefficients, when the entropy of the mean prediction falls below a share of what it was.

        Args:
            batches: gives the same batches at every call; they are gone through again until there were enough steps.
            objective: "cross-entropy" (default) with the targets, or "entropy" of the predictions.
            steps: number of updates.
            rate: highest learning rate.
            least: share of the first marginal entropy below which learning by entropy stops.

        Returns:
            The objective at every step.

        Raises:
            ConfigError: there are no batches.
        """
        return _learn([self], [batches], objective, steps, rate, least)

    def _with(self, network: nn.Module) -> Anisotropic:
        """The same coefficients and vectors in another network, which may have another head."""
        other = copy.copy(self)
        other._network = [network.eval()]
        return other


def _learn(
    nets: Sequence[Anisotropic],
    streams: Sequence[Callable[[], Iterable[Batch | tuple[Tensor, Tensor]]]],
    objective: Objective,
    steps: int,
    rate: float,
    least: float,
    pace: Pace | None = None,
    measure: Callable[[], None] | None = None,
    progress: Progress | None = None,
) -> list[float]:
    """Learns the coefficients that networks share, each of which answers its own batches; they take turns.

    What is measured of the network is measured before the first step, and again halfway.
    """
    coefficients = nets[0].coefficients
    optimizer = torch.optim.Adam([coefficients], lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    before = coefficients.detach().clone()
    spread = [0.0] * len(nets)
    told: list[float] = []
    progress = progress or Progress()
    changed = {"coefficients": coefficients, "before": before}
    for number, net in enumerate(nets):
        changed |= {f"buffer.{number}.{name}": value for name, value in net._network[0].named_buffers()}
    learning = Learning(changed, optimizer, schedule)
    begin = 0
    if (kept := progress.load(_LEARNED)) is not None:
        learning.put_back(kept)
        begin, spread, told = kept.told["step"], kept.told["spread"], kept.told["told"]
    seen = [len(range(turn, begin, len(nets))) for turn in range(len(nets))]
    cycles = [
        islice(_cycled(stream, steps, coefficients.device), count, None)
        for stream, count in zip(streams, seen, strict=True)
    ]
    for step in range(begin, steps):
        if measure is not None and step in (0, steps // 2):
            measure()
        turn = step % len(nets)
        inputs, targets = next(cycles[turn])
        logits = nets[turn](inputs)
        if objective == "entropy":
            p = logits.softmax(1)
            loss = _entropy(p).mean()
            marginal = float(_entropy(p.detach().mean(0, keepdim=True)))
            spread[turn] = spread[turn] or marginal
            if marginal < least * spread[turn]:
                with torch.no_grad():
                    coefficients.copy_(before)
                break
            before.copy_(coefficients.detach())
        else:
            loss = F.cross_entropy(logits, targets)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([coefficients], 1.0)
        optimizer.step()
        schedule.step()
        told.append(float(loss.detach()))
        if pace is not None:
            pace.passed(step + 1, steps)
        if progress.due() or step + 1 == steps:
            tensors, about = learning.state()
            progress.save(_LEARNED, tensors, {**about, "step": step + 1, "spread": spread, "told": told})
    return told


def _entropy(p: Tensor) -> Tensor:
    return -(p * p.clamp_min(1e-12).log()).sum(1)


def _own(batches: Callable[[int | None], Iterator[Batch]], number: int, images: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The samples of a run, so many at a time."""
    return _pieces(batches(number), images)


def _pieces(batches: Iterable[Batch], images: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of so many samples, of those that larger ones hold."""
    for batch in batches:
        inputs, targets = (batch.images, batch.targets) if isinstance(batch, Batch) else batch
        yield from zip(inputs.split(images), targets.split(images), strict=True)


def _cycled(
    batches: Callable[[], Iterable[Batch | tuple[Tensor, Tensor]]], steps: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """So many batches, from the first again where they are at an end."""
    count = 0
    while count < steps:
        before = count
        for batch in batches():
            targets = batch.targets if isinstance(batch, Batch) else batch[1]
            yield images_of(batch).to(device), targets.to(device)
            count += 1
            if count == steps:
                return
        if count == before:
            raise ConfigError("batches is empty; give some samples to learn the coefficients from")


@register("weight-operators", "anisotropic", paper="atlas")
@checked
def anisotropic(
    states: Sequence[State],
    base: State,
    network: Callable[[State, int], nn.Module],
    batches: Callable[[int | None], Iterator[Batch]],
    *,
    learn: Literal["tensor", "module", "whole"] = "tensor",
    objective: Objective = "cross-entropy",
    steps: Annotated[int, AtLeast(1)] = 100,
    images: Annotated[int, AtLeast(1)] = 16,
    rate: Annotated[float, Positive] = 0.1,
    start: float = 0.3,
    report: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> dict[str, Tensor]:
    r"""aTLAS: task vectors added with a learned factor for each tensor of each vector.

    Zhang et al., *Knowledge Composition using Task Vectors with Learned Anisotropic Scaling* (2024), by the formula of
    :class:`Anisotropic`. A few hundred numbers are learned, from few labels or from none. Where the runs have different
    classes, each batch is answered by the head of its own run. Batch normalisation has the statistics of the
    network in between while the factors are learned, measured before the first step and halfway, and wants
    :func:`repertoire.weights.refresh_batchnorm` afterwards.

    No pass can be saved by keeping features: every layer changes in every step. Time is that of `steps * images` passes
    forward and backward, and memory that of `images` of them.

    Args:
        states: fine-tuned from the base, of one architecture. Integers and booleans are taken from the first.
        base: the weights that all of them started from.
        network: `network(state, of)`, a new network with these weights, and the head of that run.
        batches: `batches(of)`, training samples of that run, and of all for None.
        learn: what has a factor of its own: "tensor", "module" or "whole".
        objective: "cross-entropy" with the labels, or "entropy" of the predictions.
        steps: number of updates; the runs take turns.
        images: how many a step looks at. The released code takes 128, which on a processor takes eight times as long.
        rate: highest learning rate; of 0.01, 0.03 and 0.1, the last was best on validation images of four tasks.
        start: all factors at first. The paper starts from 0 to learn a new task; here from what task arithmetic has.
        report: is told how long it will take, where that is more than half a minute.
        progress: where factors and the state of their optimiser are kept while they are learned; by default nowhere.

    Returns:
        New tensors in the first state's order, dtypes and devices.

    Raises:
        ConfigError: there are no states or no batches, or an option lies outside its range.
        CheckpointError: names or shapes differ; all that do are named.

    Example:
        >>> import torch
        >>> from repertoire.weights import anisotropic
        >>> def network(state, of=0):
        ...     layer = torch.nn.Linear(1, 2, bias=False)
        ...     layer.load_state_dict(dict(state))
        ...     return layer
        >>> def batches(of):
        ...     yield torch.ones(4, 1), torch.zeros(4, dtype=torch.int64)
        >>> base = {"weight": torch.zeros(2, 1)}
        >>> right, wrong = ({"weight": torch.tensor([[s], [-s]])} for s in (1.0, -1.0))
        >>> merged = anisotropic([right, wrong], base, network, batches, rate=0.1)["weight"]
        >>> bool(merged[0] > 1 > -1 > merged[1])
        True
    """
    check_alike(states)
    check_base(states[0], base)
    vectors = [TaskVector(state, base) for state in states]
    net = Anisotropic(network(states[0], 0), vectors, base, learn)
    nets = [net, *(net._with(network(states[0], number)) for number in range(1, len(states)))]
    with torch.no_grad():
        net.coefficients.fill_(start)

    def present() -> dict[str, Tensor]:
        """The state at the coefficients as they are; what is no parameter is a mean."""
        with torch.no_grad():
            factors = {name: net.coefficients[:, block].tolist() for name, block in net._blocks.items()}
        even = [1 / len(states)] * len(states)

        def merge(name: str, tensors: list[Tensor], origin: Tensor) -> Tensor:
            found = factors.get(name, even)
            with torch.no_grad():
                return combined([*tensors, origin], [*found, 1 - math.fsum(found)])

        return tensor_by_tensor(states, base, merge)

    def measure() -> None:
        """Gives all networks the statistics of the one at the coefficients as they are."""
        between = network(present(), 0)
        if refresh_batchnorm(between, first_of(batches(None), STATISTICS)):
            found = dict(between.named_buffers())
            for each in nets:
                for name, value in each._network[0].named_buffers():
                    if name in found and name in states[0]:
                        value.copy_(found[name])

    streams = [partial(_own, batches, number, images) for number in range(len(states))]
    pace = Pace(report, f"factors are learned in {steps} steps of {images} images", "fewer: steps=..., or images=...")
    _learn(nets, streams, objective, steps, rate, LEAST, pace, measure, progress)
    return present()

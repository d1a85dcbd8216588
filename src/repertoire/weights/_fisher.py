"""Fisher merging: each weight is decided by the models whose predictions depend on it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.ops import evaluating
from repertoire.ranges import AtLeast, checked
from repertoire.registry import register
from repertoire.weights._batchnorm import images_of
from repertoire.weights._progress import Progress
from repertoire.weights._squares import Squares
from repertoire.weights._state import State, check_alike
from repertoire.weights._wide import as_weights, check_base, combined, pieces, tensor_by_tensor

__all__ = ["fisher", "fisher_average", "fisher_diagonal"]

EXACT = 20
"""Classes up to which the expectation over labels is exact."""

LARGEST = 1 << 24
"""Numbers that the gradients of single samples may have at a time."""


@checked
def fisher_diagonal(
    model: nn.Module,
    batches: Iterable[Tensor | Batch | tuple[Tensor, ...]],
    *,
    labels: Literal["model", "given"] = "model",
    samples: Annotated[int, AtLeast(1)] | None = None,
    seed: int = 0,
) -> dict[str, Tensor]:
    r"""Diagonal of the Fisher information: how much the predictions of a network depend on each of its weights.

    .. math::
        F_j = \mathbb{E}_{x}\, \mathbb{E}_{y \sim p_\theta(y \mid x)}
              \Big(\frac{\partial \log p_\theta(y \mid x)}{\partial \theta_j}\Big)^2

    as Matena and Raffel, *Merging Models with Fisher-Weighted Averaging* (2021) use it. The expectation over labels is
    exact for up to 20 classes; of more, one label is drawn for each sample. With `labels` "given", the labels of the
    data take the place of the model's own answers. That is the empirical Fisher, which is another quantity: it vanishes
    where the training data is fitted perfectly.

    The gradient of each sample is squared, and not that of the mean of a batch. Where a linear layer looks at one
    vector of each sample, that gradient is :math:`\delta a^\top` of its input a and the gradient :math:`\delta` of its
    output, and the sum of its squares over samples a product of matrices, :math:`\sum_n \delta_n^2 (a_n^2)^\top`: as
    cheap as one gradient of the batch. Of all other weights it is computed sample by sample.

    Args:
        model: inputs to logits `[N, C]`; in evaluation mode for it, and left as it was. Samples must not influence each
            other, as they do not in evaluation mode.
        batches: inputs as evaluation sees them; tensors, `Batch`, or tuples of inputs and targets. Moved to the model's
            device.
        labels: "model" (default), an expectation over the model's predictions, or "given".
        samples: how many to look at; all if None. A few hundred are enough.
        seed: of the labels that are drawn.

    Returns:
        Name of the parameter to its entries, in the parameter's dtype or float32 if that is narrower.

    Raises:
        ConfigError: there are no batches, or `labels` is "given" and they have none.

    Example:
        >>> import torch
        >>> from repertoire.weights import fisher_diagonal
        >>> layer = torch.nn.Linear(1, 2)
        >>> _ = layer.load_state_dict({"weight": torch.zeros(2, 1), "bias": torch.zeros(2)})
        >>> fisher_diagonal(layer, [torch.tensor([[2.0]])])["weight"]  # p (1 - p) x^2
        tensor([[1.],
                [1.]])
    """
    parameters = {name: value.detach() for name, value in model.named_parameters()}
    buffers = {name: value.detach() for name, value in model.named_buffers()}
    device = next((value.device for value in (*parameters.values(), *buffers.values())), torch.device("cpu"))
    generator = torch.Generator().manual_seed(seed)
    sums = {n: torch.zeros_like(v, dtype=torch.promote_types(v.dtype, torch.float32)) for n, v in parameters.items()}
    squares: Squares | None = None
    seen = 0
    with evaluating(model):
        for batch in batches:
            inputs = images_of(batch).to(device)
            left = len(inputs) if samples is None else min(len(inputs), samples - seen)
            if left <= 0:
                break
            squares = squares or Squares(model, parameters, buffers, inputs[:1])
            given = _targets(batch) if labels == "given" else None
            each = max(1, LARGEST // max(1, squares.numbers))
            for start in range(0, left, each):
                part = slice(start, min(start + each, left))
                x = inputs[part]
                for y, share in _answers(model, x, None if given is None else given[part].to(device), generator):
                    squares.add(sums, x, y, share)
            seen += left
    if seen == 0:
        raise ConfigError("batches is empty; give some training samples to measure the Fisher information on")
    return {name: total.div_(seen) for name, total in sums.items()}


def _targets(batch: Tensor | Batch | tuple[Tensor, ...]) -> Tensor:
    if isinstance(batch, Batch):
        return batch.targets
    if isinstance(batch, Tensor) or len(batch) < 2:
        raise ConfigError("labels='given' needs the targets of the samples, and these batches have none")
    return batch[1]


def _answers(
    model: nn.Module, x: Tensor, given: Tensor | None, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Labels of the samples, and how much each counts: given ones, one that is drawn, or all of them in turn."""
    if given is not None:
        yield given, torch.ones(len(x), device=x.device)
        return
    with torch.no_grad():
        p = model(x).double().softmax(1)
    if p.shape[1] > EXACT:
        drawn = torch.multinomial(p.cpu(), 1, generator=generator)[:, 0]
        yield drawn.to(x.device), torch.ones(len(x), device=x.device)
        return
    for c in range(p.shape[1]):
        yield torch.full((len(x),), c, device=x.device), p[:, c]


@checked
@torch.no_grad()
def fisher_average(
    states: Sequence[State],
    fishers: Sequence[State],
    *,
    weights: tuple[float, ...] | None = None,
    floor: Annotated[float, AtLeast(0)] = 1e-6,
    normalise: bool = True,
) -> dict[str, Tensor]:
    r"""Mean of weights, each weighted by the Fisher information that a model has of it.

    Matena and Raffel, *Merging Models with Fisher-Weighted Averaging* (2021):

    .. math::
        \theta_j = \frac{\sum_i \lambda_i F_{ij} \theta_{ij}}{\sum_i \lambda_i F_{ij}}

    which is where the product of the models' posteriors is largest, if each is approximated by a normal distribution.
    With equal information it is the plain mean; what has no information in one model takes the value of another.
    Tensors without it, such as running statistics, are averaged with the weights alone. Networks with batch
    normalisation want :func:`repertoire.weights.refresh_batchnorm` afterwards.

    Args:
        states: fine-tuned from the same weights, of one architecture; `state_dict()` of models, or `LazyState` of
            files. Integers and booleans are taken from the first.
        fishers: for each state, name to tensor of the same shape, as :func:`fisher_diagonal` gives.
        weights: :math:`\lambda` of the states, which are meant to be chosen on validation data; all alike by default.
        floor: the least information that counts, so that what is in none is averaged. The authors' code has 1e-6, for
            the first state only.
        normalise: whether the information of each state is divided by its norm over all tensors, after the floor, as
            the authors' code does: a model that is less sure of everything then counts as much as another.

    Returns:
        New tensors in the first state's order, dtypes and devices.

    Raises:
        ConfigError: there are no states, or more or fewer fishers or weights than states.
        CheckpointError: names or shapes differ; all that do are named.

    Example:
        >>> import torch
        >>> from repertoire.weights import fisher_average
        >>> states = [{"w": torch.tensor([0.0, 0.0])}, {"w": torch.tensor([1.0, 1.0])}]
        >>> fishers = [{"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([3.0, 5.0])}]
        >>> fisher_average(states, fishers, normalise=False)["w"].round(decimals=3)
        tensor([0.7500, 1.0000])
    """
    check_alike(states)
    if len(fishers) != len(states):
        raise ConfigError(f"fishers must have one mapping for each of the {len(states)} states, found {len(fishers)}")
    for information in fishers:
        check_base({name: states[0][name] for name in information if name in states[0]}, information, "information")
    factors = as_weights(weights, states)
    scales = [factor / (_norm(f) if normalise else 1.0) for factor, f in zip(factors, fishers, strict=True)]

    def merge(name: str, tensors: list[Tensor], first: Tensor) -> Tensor:
        if not all(name in information for information in fishers):
            return combined(tensors, factors, divisor=math.fsum(factors))
        result = torch.empty_like(first, memory_format=torch.contiguous_format)
        flat = result.view(-1)
        for part, wide in pieces([*tensors, *(information[name] for information in fishers)]):
            total, divisor = torch.zeros_like(wide[0]), torch.zeros_like(wide[0])
            for scale, value, known in zip(scales, wide[: len(tensors)], wide[len(tensors) :], strict=True):
                share = known.clamp_min_(floor).mul_(scale)
                total += share * value
                divisor += share
            plain = sum((scale * value for scale, value in zip(scales, wide[: len(tensors)], strict=True)), 0.0)
            # Without a floor there may be nothing to divide by.
            flat[part] = torch.where(divisor == 0, plain / math.fsum(scales), total / divisor)
        return result

    return tensor_by_tensor(states, None, merge)


def _norm(information: State) -> float:
    total = math.fsum(float(information[name].double().square().sum()) for name in information)
    return math.sqrt(total) or 1.0


@register("weight-operators", "fisher", paper="fisher-merging")
def fisher(
    states: Sequence[State],
    network: Callable[[State, int], nn.Module],
    batches: Callable[[int | None], Iterator[Batch]],
    *,
    weights: tuple[float, ...] | None = None,
    samples: Annotated[int, AtLeast(1)] = 512,
    floor: Annotated[float, AtLeast(0)] = 1e-6,
    normalise: bool = True,
    progress: Progress | None = None,
) -> dict[str, Tensor]:
    """Fisher merging: a mean of weights in which the models that know a weight decide its value.

    Matena and Raffel, *Merging Models with Fisher-Weighted Averaging* (2021): :func:`fisher_diagonal` of each model on
    its own training samples, and :func:`fisher_average` of the states. Costs a pass forward and one backward a class
    for each sample. Networks with batch normalisation want :func:`repertoire.weights.refresh_batchnorm` afterwards.

    Args:
        states: fine-tuned from the same weights, of one architecture. Integers and booleans are taken from the first.
        network: `network(state, of)`, a new network with these weights, and the head of that run.
        batches: `batches(of)`, training samples of that run.
        weights: of the states, which are meant to be chosen on validation data; all alike by default.
        samples: how many of each run to look at.
        floor: the least information that counts.
        normalise: whether the information of each state is divided by its norm.
        progress: where the information of each state is kept once it is measured; by default nowhere.

    Returns:
        New tensors in the first state's order, dtypes and devices.

    Raises:
        ConfigError: there are no states or no batches, or an option lies outside its range.
        CheckpointError: names or shapes differ; all that do are named.

    Example:
        >>> import torch
        >>> from repertoire.weights import fisher
        >>> def network(state, of=0):
        ...     layer = torch.nn.Linear(2, 2, bias=False)
        ...     layer.load_state_dict(dict(state))
        ...     return layer
        >>> states = [{"weight": torch.eye(2)}, {"weight": torch.zeros(2, 2)}]
        >>> merged = fisher(states, network, lambda of: iter([torch.eye(2)[[of]]]))["weight"]
        >>> merged.round(decimals=2)  # the first has seen the first input only, and the second the second
        tensor([[1., 0.],
                [0., 0.]])
    """
    check_alike(states)
    progress = progress or Progress()
    fishers = []
    for number, state in enumerate(states):

        def measured(number: int = number, state: State = state) -> dict[str, Tensor]:
            found = fisher_diagonal(network(state, number), batches(number), samples=samples)
            return {name: value for name, value in found.items() if name in state}

        found = progress.part(f"information-{number}", measured)
        fishers.append({name: value.to(state[name].device) for name, value in found.items()})
    return fisher_average(states, fishers, weights=weights, floor=floor, normalise=normalise)

"""RegMean: layers merged so that each answers on its own data as it did before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Annotated

import torch
from torch import Tensor, nn

from repertoire.data import Batch
from repertoire.ranges import Share, checked
from repertoire.registry import register
from repertoire.weights._moments import input_moments
from repertoire.weights._progress import Progress
from repertoire.weights._state import State, check_alike
from repertoire.weights._wide import combined, tensor_by_tensor

__all__ = ["regmean"]

RIDGE = 1e-6
"""Added to the moments, as a share of their mean diagonal: inputs that are always 0 say nothing, and are averaged."""


@register("weight-operators", "regmean")
@checked
@torch.no_grad()
def regmean(
    states: Sequence[State],
    network: Callable[[State, int], nn.Module],
    batches: Callable[[int | None], Iterator[Batch]],
    *,
    off_diagonal: Annotated[float, Share] = 0.9,
    progress: Progress | None = None,
) -> dict[str, Tensor]:
    r"""Regression mean: each layer comes as near as it can to what every model's own answers on its own data.

    Jin et al., *Dataless Knowledge Fusion by Merging Weights of Language Models* (2023). For the weights
    :math:`W_i` `[outputs, d]` of a linear or convolution layer, and the second moments :math:`G_i` of its inputs in
    model i on that model's data, with entries off the diagonal times `off_diagonal`:

    .. math::
        W = \Big(\sum_i W_i G_i\Big) \Big(\sum_i G_i\Big)^{-1}
          = \arg\min_W \sum_i \mathbb{E}_i \lVert W x - W_i x \rVert^2

    where the second equality holds if `off_diagonal` is 1. Everything else, biases and normalisation included, is
    averaged. One model's moments are held at a time. Networks with batch normalisation want
    :func:`repertoire.weights.refresh_batchnorm` afterwards.

    Args:
        states: fine-tuned from the same weights, of one architecture. Integers and booleans are taken from the first.
        network: `network(state, of)`, a new network with these weights, and the head of that run.
        batches: `batches(of)`, training samples of that run.
        off_diagonal: factor of the moments of different inputs, from 0 (the diagonal alone counts) to 1 (least
            squares). 0.9 is what the authors use.
        progress: where the moments of each model are kept once they are measured; by default nowhere.

    Returns:
        New tensors in the first state's order, dtypes and devices.

    Raises:
        ConfigError: there are no states or no batches, or `off_diagonal` lies outside its range.
        CheckpointError: names or shapes differ; all that do are named.

    Example:
        >>> import torch
        >>> from repertoire.weights import regmean
        >>> def network(state, of=0):
        ...     layer = torch.nn.Linear(2, 1, bias=False)
        ...     layer.load_state_dict(dict(state))
        ...     return layer
        >>> states = [{"weight": torch.tensor([[1.0, 0.0]])}, {"weight": torch.tensor([[0.0, 1.0]])}]
        >>> regmean(states, network, lambda of: iter([torch.eye(2)[[of]]]))["weight"].round(decimals=3)
        tensor([[1., 1.]])
    """
    check_alike(states)
    progress = progress or Progress()
    moments: dict[str, Tensor] = {}
    products: dict[str, Tensor] = {}
    for number, state in enumerate(states):
        made = partial(_moments_of, network, batches, state, number)
        for layer, found in progress.part(f"moments-{number}", made).items():
            name = f"{layer}.weight" if layer else "weight"
            if name not in state:  # the head of this run alone
                continue
            kept = _tempered(found.to(state[name].device), off_diagonal)
            weight = state[name].to(kept)
            product = _grouped(weight, kept) @ kept
            moments[name] = moments[name] + kept if name in moments else kept
            products[name] = products[name] + product if name in products else product

    def merge(name: str, tensors: list[Tensor], first: Tensor) -> Tensor:
        if name not in moments:
            return combined(tensors, [1.0] * len(tensors), divisor=len(tensors))
        solved = torch.linalg.solve(moments[name], products[name], left=False)
        return solved.reshape(first.shape).to(first.device, first.dtype).contiguous()

    return tensor_by_tensor(states, None, merge)


def _moments_of(
    network: Callable[[State, int], nn.Module],
    batches: Callable[[int | None], Iterator[Batch]],
    state: State,
    number: int,
) -> dict[str, Tensor]:
    return input_moments(network(state, number), batches(number))


def _grouped(weight: Tensor, moments: Tensor) -> Tensor:
    """Weights as `[..., outputs, d]` beside moments `[..., d, d]`."""
    return weight.reshape(*moments.shape[:-2], -1, moments.shape[-1])


def _tempered(moments: Tensor, off_diagonal: float) -> Tensor:
    """Moments with smaller entries off the diagonal, and a little on it."""
    diagonal = moments.diagonal(dim1=-2, dim2=-1)
    ridge = RIDGE * diagonal.mean(-1, keepdim=True)
    # Where nothing at all came in, each model's weights count alike.
    ridge = ridge.masked_fill(ridge == 0, 1.0)
    return moments * off_diagonal + torch.diag_embed((1 - off_diagonal) * diagonal + ridge)

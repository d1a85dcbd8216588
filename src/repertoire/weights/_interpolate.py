"""WiSE-FT: between the weights before and after fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from repertoire.ranges import Finite, checked
from repertoire.registry import register
from repertoire.weights._arithmetic import task_arithmetic
from repertoire.weights._state import State

__all__ = ["interpolate", "wise_ft"]


@checked
@torch.no_grad()
def interpolate(pre: State, fine: State, alpha: Annotated[float, Finite] = 0.5) -> dict[str, Tensor]:
    r"""WiSE-FT: the weights on the straight line between a network before fine-tuning and after it.

    Wortsman et al., *Robust fine-tuning of zero-shot models* (2022):

    .. math::
        \theta = (1 - \alpha)\, \theta_\text{pre} + \alpha\, \theta_\text{fine}

    Under a change of distribution it is often more accurate than either. Lin et al., *Spurious Feature Diversification
    Improves Out-of-distribution Generalization* (2023), explain it by the larger number of spurious cues, each of which
    then misleads less, and see it spoilt where the fine-tuned network is too sure of itself. BANG is the same with a
    network that was fine-tuned with label smoothing or Mixup (`--loss cross-entropy:label_smoothing=0.1`, or `--augment
    +mixup`). The share of samples that both networks get wrong and their mean right is
    :func:`repertoire.diagnostics.both_wrong_merge_right`.

    Choose alpha on validation data like the training data: what is out of distribution is what is not known yet. The
    networks have one head, that of the one before fine-tuning included. Networks with batch normalisation want
    :func:`repertoire.weights.refresh_batchnorm` afterwards.

    Args:
        pre: the weights before fine-tuning; `state_dict()` of a model, or a `LazyState`.
        fine: the weights after it.
        alpha: where on the line; 0 is before, 1 after, and half is what the authors take where nothing is tuned.

    Returns:
        New tensors in the order, dtypes and devices of `fine`; integers and booleans are its own.

    Raises:
        CheckpointError: names or shapes differ.

    Example:
        >>> import torch
        >>> from repertoire.weights import interpolate
        >>> interpolate({"w": torch.tensor([0.0, 4.0])}, {"w": torch.tensor([2.0, 0.0])}, alpha=0.25)
        {'w': tensor([0.5000, 3.0000])}
    """
    return task_arithmetic([fine], pre, scale=alpha)


@register("weight-operators", "wise-ft", paper="bang-wise-ft")
@checked
def wise_ft(states: Sequence[State], base: State, *, alpha: Annotated[float, Finite] = 0.5) -> dict[str, Tensor]:
    r"""WiSE-FT of several networks: the mean of their weights, brought back towards those before fine-tuning.

    :func:`interpolate` with the mean of the states; of one state, it is that. With states that were fine-tuned with
    label smoothing or Mixup it is BANG, of Lin et al., *Spurious Feature Diversification Improves Out-of-distribution
    Generalization* (2023).

    .. math::
        \theta = (1 - \alpha)\, \theta_0 + \frac{\alpha}{k} \sum_{i=1}^{k} \theta_i

    Args:
        states: fine-tuned from the base, of one architecture; `state_dict()` of models, or `LazyState` of files.
            Integers and booleans are taken from the first.
        base: the weights that all of them started from.
        alpha: where on the line; 0 is before fine-tuning, 1 after.

    Returns:
        New tensors in the first state's order, dtypes and devices.

    Raises:
        ConfigError: there are no states.
        CheckpointError: names or shapes differ; all that do are named.

    Example:
        >>> import torch
        >>> from repertoire.weights import wise_ft
        >>> wise_ft([{"w": torch.tensor(2.0)}, {"w": torch.tensor(4.0)}], {"w": torch.tensor(0.0)})
        {'w': tensor(1.5000)}
    """
    return task_arithmetic(states, base, scale=alpha / max(len(states), 1))

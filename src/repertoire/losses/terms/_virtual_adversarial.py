"""Virtual adversarial loss: a network's answer should not change along the direction in which it changes fastest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor, nn

from repertoire.losses.contracts._base import Reduction, reduce
from repertoire.losses.contracts._classes import at_least_float32
from repertoire.ops import adversarial_direction, not_counting, rewinding
from repertoire.ranges import AtLeast, Positive, checked

__all__ = ["virtual_adversarial_loss"]


@checked
def virtual_adversarial_loss(
    network: Callable[[Tensor], Tensor],
    inputs: Tensor,
    *,
    logits: Tensor | None = None,
    rewind: Callable[[], None] | None = None,
    epsilon: Annotated[float, AtLeast(0)] = 2.0,
    xi: Annotated[float, Positive] | None = None,
    steps: Annotated[int, AtLeast(0)] = 1,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Divergence of a network's answer from that nearby, in the direction in which it changes fastest.

    Miyato, Maeda, Koyama and Ishii, *Virtual Adversarial Training: A Regularization Method for Supervised and
    Semi-Supervised Learning* (2017), which needs no label:

    .. math::
        \ell_i = \mathrm{KL}\bigl(p(x_i) \,\|\, p(x_i + \epsilon\,d_i)\bigr), \qquad
        d_i = \operatorname*{arg\,max}_{\lVert d \rVert = 1} \mathrm{KL}\bigl(p(x_i) \,\|\, p(x_i + \epsilon\,d)\bigr)

    where d is found by a power step or more (:func:`repertoire.ops.adversarial_direction`), and p(x) takes no gradient.
    With no step the direction is random, which is the paper's baseline.

    All passes of a call see the same dropout masks, as in the released code. If the network is a module, batch
    normalisation normalises by the batch in each of them and keeps its running statistics, and memories remember
    nothing.

    Args:
        network: a module or function, called with inputs; gives logits `[N, C]`.
        inputs: float `[N, ...]`.
        logits: what the network says of the inputs, if it has been asked already.
        rewind: goes back to the random state that the network had when it was asked
            (:func:`repertoire.ops.rewinding`), where anything in it is random; goes with `logits`.
        epsilon: length of the change of each sample, 0 or more, in the units of the inputs.
        xi: length of the step of the finite difference; what the precision asks for if None. The paper has 1e-6, which
            is lost in float32.
        steps: power iterations, 0 or more; 1 in the paper.
        reduction: "mean" (default) and "sum" give a scalar, "none" gives `[N]`.

    Returns:
        The loss, 0 or more; float32 for half precision, else of the logits' dtype.

    Raises:
        ConfigError: an option out of range. ShapeError: inputs that are not floating point.

    Example:
        >>> import torch
        >>> from repertoire.losses import virtual_adversarial_loss
        >>> weight = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
        >>> x = torch.tensor([[0.0, 5.0], [9.0, 5.0]])  # at the border between two classes, and far from it
        >>> virtual_adversarial_loss(lambda z: z @ weight.T, x, epsilon=1.0, reduction="none").round(decimals=4)
        tensor([0.4338, 0.0000])
    """
    module = network if isinstance(network, nn.Module) else nn.Identity()
    start = torch.randn(inputs.shape, device=inputs.device)
    onward = rewinding(inputs.device)
    back = onward if rewind is None else rewind

    def again(changed: Tensor) -> Tensor:
        back()
        return network(changed)

    with not_counting(module):
        if logits is None:
            with torch.no_grad():
                logits = again(inputs)
        # In mixed precision they are rounded by more than the difference that is looked for.
        known = None if torch.is_autocast_enabled(inputs.device.type) else logits
        direction = adversarial_direction(again, inputs, logits=known, start=start, xi=xi, steps=steps)
        log_p = at_least_float32(logits.detach()).log_softmax(1)
        log_q = at_least_float32(again(inputs.detach() + epsilon * direction)).log_softmax(1)
    if rewind is not None:
        # Or what is drawn next would be drawn a second time.
        onward()
    return reduce((log_p.exp() * (log_p - log_q)).sum(1), reduction)

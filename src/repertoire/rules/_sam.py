"""Sharpness-aware minimisation."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor, nn

from repertoire.data import Batch
from repertoire.errors import ConfigError, option
from repertoire.methods import Method
from repertoire.ranges import Positive
from repertoire.registry import register
from repertoire.rules._base import MakeOptimizer, Rule
from repertoire.rules._statistics import not_counting

__all__ = ["SAM"]


@register("rules", "sam", paper="sam")
class SAM(Rule):
    r"""Minimises the worst loss in a ball around the weights, with two forward and backward passes a step.

    Foret, Kleiner, Mobahi and Neyshabur, *Sharpness-Aware Minimization for Efficiently Improving Generalization*
    (2020):

    .. math:: \hat\epsilon(w) = \rho\,\frac{\nabla L(w)}{\lVert\nabla L(w)\rVert_2}, \qquad
              w \leftarrow w - \eta\,\nabla L(w)\big|_{w+\hat\epsilon(w)}

    The norm is over all parameters together. Three details follow the released code rather than the paper, which leaves
    them open: running statistics of batch normalisation, and whatever else a method remembers, follow the first pass
    only; both passes see the same dropout masks; and under several ranks each perturbs along the gradient of its own
    share of the batch ("m-sharpness").

    Args:
        rho: radius of the ball, > 0. The paper uses 0.05 for CIFAR-10 and most of its experiments.
        adaptive: measures the ball relative to each weight's size,
            :math:`\hat\epsilon = \rho\,w^2 g / \lVert w g\rVert` (Kwon et al., *ASAM*, 2021, whose radii
            are about ten times as large).

    Raises:
        ConfigError: `rho` is not positive; or training is in float16, where a scaled gradient can overflow between the
            two passes (bfloat16 works).

    Example:
        >>> from repertoire.rules import SAM
        >>> SAM(rho=0.1).rho
        0.1
    """

    pieces_alike = True

    @classmethod
    def example_options(cls) -> dict[str, Any]:
        """Options for an example of a small network and batch, where the defaults do not do."""
        return {"rho": 1e-7}

    def __init__(self, rho: Annotated[float, Positive] = 0.05, adaptive: bool = False) -> None:
        self.rho = rho
        self.adaptive = adaptive

    def setup(self, method: Method, make_optimizer: MakeOptimizer, **options: Any) -> None:
        """See `Rule.setup`."""
        super().setup(method, make_optimizer, **options)
        if self.fabric.strategy.precision.precision == "16-mixed":
            raise ConfigError(f"rule 'sam' does not work in float16: use {option('precision', 'bf16')}")

    def step(self, method: Method, batch: Batch) -> dict[str, Tensor]:
        device = batch.targets.device
        random = torch.random.get_rng_state() if device.type == "cpu" else torch.cuda.get_rng_state(device)
        with self.fabric.no_backward_sync(self.module):
            logs = self._gradients(method, batch)
        parameters = [p for p in method.parameters() if p.grad is not None]
        original = [p.detach().clone() for p in parameters]
        self._climb(parameters)
        self.optimizer.zero_grad(set_to_none=True)
        if device.type == "cpu":
            torch.random.set_rng_state(random)
        else:
            torch.cuda.set_rng_state(random, device)
        with not_counting(method):
            self._gradients(method, batch)
        # The saved copy, not a subtraction: w + e - e is not w in floating point.
        with torch.no_grad():
            torch._foreach_copy_([p.detach() for p in parameters], original)
        self._update(method)
        return logs

    @torch.no_grad()
    def _climb(self, parameters: list[nn.Parameter]) -> None:
        gradients = [p.grad for p in parameters if p.grad is not None]
        if not gradients:
            return
        weights: list[Tensor] = [p.detach() for p in parameters]
        direction: list[Tensor] = list(gradients)
        if self.adaptive:
            direction = list(torch._foreach_mul(direction, list(torch._foreach_abs(weights))))
        norm = torch.linalg.vector_norm(torch.stack(list(torch._foreach_norm(direction))))
        if self.adaptive:
            direction = list(torch._foreach_mul(direction, list(torch._foreach_abs(weights))))
        # A gradient of exactly zero has no direction: stay.
        torch._foreach_add_(weights, list(torch._foreach_mul(direction, self.rho / norm.clamp_min(1e-12))))

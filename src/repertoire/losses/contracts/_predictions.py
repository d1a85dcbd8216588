"""The contract of losses on predictions without targets."""

from __future__ import annotations

from torch import Tensor

from repertoire.errors import ShapeError
from repertoire.losses.contracts._base import Loss

__all__ = ["PredictionsLoss", "check_predictions"]


class PredictionsLoss(Loss):
    """`loss(logits) -> scalar`: what a network says of samples without targets, logits float `[N, C]`.

    It asks something of the predictions themselves: to be sure, to be varied. By itself it teaches nothing; it is added
    to a loss that knows targets (method `unlabelled-loss`).

    Such a loss looks at no order of the samples, is zero for a batch of none, and has a finite value and gradient also
    where predictions are certain, and where a class is predicted for no sample.
    """

    contract = "predictions"
    example = "(torch.zeros(2, 4))"

    def forward(self, logits: Tensor) -> Tensor:
        """The loss of logits `[N, C]`."""
        return self.call(logits)


def check_predictions(logits: Tensor) -> None:
    """Raises `ShapeError` unless logits are floating point `[N, C]`. Looks at no values."""
    if logits.ndim != 2 or not logits.is_floating_point():
        raise ShapeError(f"logits must be floating point [N, C], found {logits.dtype} {list(logits.shape)}")

"""Ridge regression that is shown its rows piece by piece."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from repertoire.errors import ShapeError
from repertoire.ranges import AtLeast, Positive, checked

__all__ = ["RidgeRecursion"]


class RidgeRecursion:
    r"""Ridge regression of rows that come piece by piece, equal to that of all rows at once.

    Recursive least squares: with X the rows of a piece and Y their targets, after :math:`R_0 = I / \lambda` and
    :math:`W_0 = 0`,

    .. math::
        R \leftarrow R - R X^\top (I + X R X^\top)^{-1} X R, \qquad W \leftarrow W + R X^\top (Y - X W)

    so that :math:`R = (\lambda I + \sum X^\top X)^{-1}` and :math:`W = R \sum X^\top Y` whatever the pieces were, and
    nothing of a piece has to be kept. Computed in float64, in which R is made symmetric again after each step, since
    what is lost of its symmetry would grow; and in blocks of at most d rows, so that the system that is solved is never
    larger than R.

    Args:
        dimensions: d, the width of the rows.
        ridge: :math:`\lambda`, positive; 1 by default.
        outputs: width of the targets at the beginning; `widen` adds columns.
        device: where R and W are.

    Attributes:
        inverse: R, float64 `[d, d]`.
        weight: W, float64 `[d, k]`.

    Example:
        >>> import torch
        >>> from repertoire.ops import RidgeRecursion
        >>> x, y = torch.eye(2), torch.tensor([[2.0], [4.0]])
        >>> found = RidgeRecursion(2, ridge=1.0, outputs=1)
        >>> for row in range(2):
        ...     found.update(x[row : row + 1], y[row : row + 1])
        >>> [round(value, 6) for value in found.weight.flatten().tolist()]
        [1.0, 2.0]
    """

    @checked
    def __init__(
        self,
        dimensions: Annotated[int, AtLeast(1)],
        ridge: Annotated[float, Positive] = 1.0,
        outputs: Annotated[int, AtLeast(0)] = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        self.inverse = torch.eye(dimensions, dtype=torch.float64, device=device) / ridge
        self.weight = torch.zeros(dimensions, outputs, dtype=torch.float64, device=device)

    def widen(self, outputs: int) -> None:
        """Adds columns of zeros to W, which is what targets that were always zero have given."""
        missing = outputs - self.weight.shape[1]
        if missing < 0:
            raise ShapeError(f"there are {self.weight.shape[1]} outputs already; expected as many or more, {outputs}")
        self.weight = torch.cat([self.weight, self.weight.new_zeros(len(self.weight), missing)], dim=1)

    @torch.no_grad()
    def update(self, x: Tensor, y: Tensor) -> None:
        """Learns from further rows.

        Args:
            x: floating point `[n, d]`, any n.
            y: floating point `[n, k]`.

        Raises:
            ShapeError: rows or targets that do not fit.
        """
        dimensions, outputs = self.weight.shape
        for name, value, width in (("x", x, dimensions), ("y", y, outputs)):
            if value.ndim != 2 or value.shape != (len(x), width) or not value.is_floating_point():
                raise ShapeError(
                    f"{name} must be a floating point [n, {width}], a row for each sample; found {value.dtype} "
                    f"{list(value.shape)}"
                )
        for rows, targets in zip(x.split(dimensions), y.split(dimensions), strict=True):
            if len(rows):
                self._step(rows.to(self.weight), targets.to(self.weight))

    def _step(self, x: Tensor, y: Tensor) -> None:
        spread = self.inverse @ x.T
        system = x @ spread
        system.diagonal().add_(1.0)
        # R - S C^-1 S^T as R - T T^T, which cannot make R less symmetric than rounding does.
        factor = torch.linalg.cholesky(system)
        half = torch.linalg.solve_triangular(factor, spread.T, upper=False)
        inverse = self.inverse - half.T @ half
        self.inverse = (inverse + inverse.T) / 2
        # R_new X^T is S C^-1, which is more exact than the product with the new R.
        gain = torch.linalg.solve_triangular(factor.T, half, upper=True).T
        self.weight = self.weight + gain @ (y - x @ self.weight)

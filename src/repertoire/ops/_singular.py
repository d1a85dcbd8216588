"""The largest singular value of a matrix that changes slowly: a step of the power iteration an update."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire.errors import ShapeError
from repertoire.ops._memory import Memory
from repertoire.ranges import AtLeast, checked

__all__ = ["TopSingularValue"]


class TopSingularValue(Memory):
    r"""Largest singular value of a weight that changes slowly, by a step of the power iteration for each update.

    Miyato et al., *Spectral Normalization for Generative Adversarial Networks* (2018). The left singular vector u is
    kept from one update to the next, which goes on with the iteration while the weights move:

    .. math:: v = \frac{W^\top u}{\lVert W^\top u \rVert}, \qquad u' = \frac{W v}{\lVert W v \rVert}, \qquad
        \sigma = u'^\top W v

    The gradient of :math:`\sigma` is that of the weight alone, :math:`u' v^\top`. The kept vector moves once an update
    and never in `forward`; a new one begins with steps of its own.

    Args:
        weight: a matrix `[m, n]`, or more dimensions, of which those after the first are taken together, as a
            convolution's are. It is not kept.
        warm_up: steps that the vector begins with, 1 or more.

    Raises:
        ShapeError: fewer than two dimensions.

    Example:
        >>> import torch
        >>> from repertoire.ops import TopSingularValue
        >>> weight = torch.diag(torch.tensor([3.0, 1.0]))
        >>> round(TopSingularValue(weight)(weight).item(), 4)
        3.0
    """

    remembers: ClassVar[dict[str, Literal["rows", "mean"]]] = {"u": "mean"}
    u: Tensor

    @checked
    def __init__(self, weight: Tensor, warm_up: Annotated[int, AtLeast(1)] = 10) -> None:
        super().__init__()
        matrix = _matrix(weight.detach())
        # All rows together see every column that is not at right angles to them; which start hardly matters.
        u = torch.randn(len(matrix), generator=torch.Generator().manual_seed(0)).to(matrix)
        self.register_buffer("u", F.normalize(u, dim=0))
        for _ in range(warm_up):
            self.u = _turned(matrix, self.u)[1]

    def forward(self, weight: Tensor, witness: Tensor | None = None) -> Tensor:
        """The largest singular value, a scalar; float32 for half precision.

        Args:
            weight: as it is now.
            witness: a scalar of the same step, its loss say: where it is not finite, the vector does not move.
        """
        matrix = _matrix(weight)
        with torch.no_grad():
            v, u = _turned(matrix, self.u.to(matrix))
        self.remember(1, u=u if witness is None else u + 0 * witness.to(u))
        return u @ (matrix @ v)

    def commit(self, u: Tensor) -> None:
        # Over pieces of a batch it is the mean of equal vectors.
        self.u.copy_(u)


def _matrix(weight: Tensor) -> Tensor:
    if weight.ndim < 2:
        raise ShapeError(f"weight must have two dimensions or more, found {list(weight.shape)}")
    return weight.flatten(1).to(torch.promote_types(weight.dtype, torch.float32))


def _turned(matrix: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """The right vector and the next left one; a matrix that turns it to nothing leaves the left one as it was."""
    v = F.normalize(matrix.T @ u, dim=0)
    turned = matrix @ v
    length = turned.norm()
    return v, torch.where(length > 0, turned / length.clamp_min(torch.finfo(turned.dtype).tiny), u)

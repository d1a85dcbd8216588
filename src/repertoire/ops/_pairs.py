r"""Reductions over all pairs of rows, tile by tile, without a matrix of pairs.

Contrastive losses reduce the similarities :math:`s_{ij} = \alpha\,x_i \cdot y_j` of N rows with M rows to one number a
row. Written with an N x M matrix that takes O(NM) memory and is bound by moving the matrix about. Here a tile of
similarities is made, reduced and forgotten while it is in the cache; the backward pass keeps one number a row and makes
the tiles again.

What bounds it. With T = 2NMd the operations of one matrix product of all pairs:

===================  ===================  ==============================  =====================
case                 matrix products      exponentials                    memory over in- and outputs
===================  ===================  ==============================  =====================
two sets             T forward,           NM forward, NM backward         one tile, O(N)
                     3T backward
one set              T/2 forward,         N²/2 forward, N²/2 backward     two tiles, O(N)
                     3T/2 backward        (twice that if not bounded)
===================  ===================  ==============================  =====================

The dense form spends the same 4T, and moves the matrix between memory and core about ten times more. At d = 128 the
products take more than three quarters of the time on a CPU, so this is bound by the matrix units.

A tile goes through one product, one exponential in place and one sum. The exponential needs no running maximum when
the similarities are bounded: with \|s\| <= 64, exp(s) lies between 1e-28 and 1e28, and neither it nor the sum of a
billion of them leaves the range of float32. Cosines divided by a temperature of 1/64 or more are bounded so.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Unpack

from torch import Tensor

from repertoire.errors import ShapeError
from repertoire.ops._exponentials import LogSumExp, dense_logsumexp
from repertoire.ops._rows import unit_rows
from repertoire.ops._sums import FUNCTIONS, Function, PairFunction, PairSum, dense_sum
from repertoire.ops._tiles import Inputs, Plan, Similarity, Which, compute_dtype, make_plan
from repertoire.ops._transforms import transformed

__all__ = ["LARGEST_BOUND", "pair_logsumexp", "pair_sum", "prepare"]

#: |s| up to which exp(s), and a billion times it, are normal numbers in float32.
LARGEST_BOUND = 64.0


def pair_logsumexp(
    x: Tensor,
    y: Tensor | None = None,
    *,
    similarity: Similarity = "dot",
    scale: float | Tensor = 1.0,
    bias: Tensor | None = None,
    y_bias: Tensor | None = None,
    bound: float | None = None,
    **which: Unpack[Which],
) -> Tensor:
    r"""Log-sum-exp of each row's similarities with all rows, without the matrix of similarities.

    .. math:: \mathrm{lse}_i = \log \sum_{j \in A(i)} \exp(\alpha_i\, s(x_i, y_j) + b_i + c_j)

    Args:
        x: float `[N, d]`.
        y: float `[M, d]` of the same dtype and device; x itself if None.
        similarity: s: "dot" (default), "cosine", or the distances "euclidean" and "sqeuclidean", for which the
            scale will usually be negative.
        scale: alpha; a number, or a tensor without dimensions or `[N]` that may need a gradient. For cosines over a
            temperature give unit rows and one over the temperature.
        bias: b, `[N]`, added to the similarities of a row of x; may need a gradient.
        y_bias: c, `[M]`, added to those of a row of y: the logarithm of a weight, say. May need a gradient.
        bound: a promise that no \|alpha s + b + c\| exceeds this; up to 64 it saves the running maximum. A broken
            promise gives infinities.
        which: the pairs that take part, and the tile: see :class:`repertoire.ops.Which`.

    Returns:
        float `[N]`: float32 for half-precision input, which is summed in float32; -inf, with a zero gradient, for a row
        without pairs. Differentiable twice, the second time through the N x M matrix.

    Raises:
        ShapeError: shapes, dtypes or arguments that do not fit each other.

    Example:
        >>> import torch
        >>> from repertoire.ops import pair_logsumexp
        >>> x = torch.eye(3)
        >>> pair_logsumexp(x, scale=10.0, bound=10.0, exclude_self=True)  # log(1 + 1)
        tensor([0.6931, 0.6931, 0.6931])
    """
    plan, inputs = prepare(x, y, similarity, scale, bias, y_bias, symmetric=True, which=which)
    if transformed():
        return dense_logsumexp(plan, inputs)
    bounded = bound is not None and bound <= LARGEST_BOUND
    return LogSumExp.apply(plan, bounded, *inputs)


def pair_sum(
    x: Tensor,
    y: Tensor | None = None,
    function: Function | PairFunction = "exp",
    *,
    similarity: Similarity = "dot",
    scale: float | Tensor = 1.0,
    bias: Tensor | None = None,
    y_bias: Tensor | None = None,
    y_weight: Tensor | None = None,
    parameters: tuple[Tensor, ...] = (),
    **which: Unpack[Which],
) -> Tensor:
    r"""Sum of a function of each row's similarities with all rows, without the matrix of similarities.

    .. math:: r_i = \sum_{j \in A(i)} w_j\, f(\alpha_i\, s(x_i, y_j) + b_i + c_j)

    Args:
        x: float `[N, d]`.
        y: float `[M, d]` of the same dtype and device; x itself if None.
        function: f: "exp", "sigmoid", "softplus", "hinge" (the positive part) or "squared-hinge"; or a function
            `f(tile, rows, columns, *parameters)` that gives one number for each entry of a tile, the values of x[rows]
            with y[columns] for two slices, and that autograd can follow.
        similarity: s: "dot" (default), "cosine", "euclidean" or "sqeuclidean".
        scale: alpha; a number, or a tensor without dimensions or `[N]` that may need a gradient.
        bias: b, `[N]`: a margin for each anchor, say; may need a gradient.
        y_bias: c, `[M]`; may need a gradient.
        y_weight: w, `[M]`; may need a gradient. A weight of an anchor is a factor of the result.
        parameters: tensors that a function of one's own needs and that may need a gradient.
        which: the pairs that take part, and the tile: see :class:`repertoire.ops.Which`.

    Returns:
        float `[N]`: float32 for half-precision input; zero, with a zero gradient, for a row without pairs.
        Differentiable twice, the second time through the N x M matrix.

    Raises:
        ShapeError: shapes, dtypes or arguments that do not fit each other.

    Example:
        >>> import torch
        >>> from repertoire.ops import pair_sum
        >>> x = torch.tensor([[0.0], [1.0], [3.0]])
        >>> pair_sum(x, function="hinge", similarity="euclidean", scale=-1.0, bias=torch.full((3,), 2.5),
        ...          exclude_self=True)  # 2.5 less the distance, where that is positive
        tensor([1.5000, 2.0000, 0.5000])
        >>> pair_sum(x, torch.eye(1), lambda tile, rows, columns: tile ** 2)
        tensor([0., 1., 9.])
    """
    if isinstance(function, str) and function not in FUNCTIONS:
        raise ShapeError(f"function must be one of {', '.join(FUNCTIONS)} or callable, found {function!r}")
    if parameters and isinstance(function, str):
        raise ShapeError(f"parameters are for a function of your own, not for {function!r}")
    symmetric = isinstance(function, str) and y_weight is None
    plan, inputs = prepare(x, y, similarity, scale, bias, y_bias, symmetric=symmetric, which=which)
    y_weight = _vector("y_weight", y_weight, inputs.other)
    if transformed():
        return dense_sum(plan, function, y_weight, inputs, parameters)
    return PairSum.apply(plan, function, y_weight, len(parameters), *inputs, *parameters)


def prepare(
    x: Tensor,
    y: Tensor | None,
    similarity: Similarity,
    scale: float | Tensor,
    bias: Tensor | None,
    y_bias: Tensor | None,
    *,
    symmetric: bool,
    which: Which,
) -> tuple[Plan, Inputs]:
    """The plan of a walk and its tensors, with what depends on the scale and the similarity done to them.

    Scales and lengths multiply the rows beforehand, where autograd gives them their gradients; in half precision they
    multiply them tile by tile, because the product would be rounded, or be a copy in float32.
    """
    each = isinstance(scale, Tensor) and scale.ndim > 0
    symmetric = symmetric and bias is None and y_bias is None and not each
    number = 1.0 if isinstance(scale, Tensor) else scale
    plan = make_plan(x, y, similarity, number, symmetric, which)
    bias, y_bias = _vector("bias", bias, x), _vector("y_bias", y_bias, x if y is None else y)
    x_factor = row_scale = None
    if similarity == "cosine" and not plan.normalise:
        x, y = unit_rows(x), None if y is None else unit_rows(y)
    if isinstance(scale, Tensor):
        if scale.ndim > 1 or (each and scale.shape != (len(x),)):
            raise ShapeError(f"scale must be a number or [{len(x)}], one for each row of x, found {list(scale.shape)}")
        scale = scale.to(compute_dtype(x))
        if plan.distances:
            plan, row_scale = replace(plan, symmetric=False), scale.expand(len(x))
        else:
            # Half on each side keeps one set symmetric. Else the other side stays as it was, and pairs within x become
            # pairs of two sets.
            if plan.symmetric:
                scale = scale.sqrt()
            elif y is None:
                y = x
            if x.dtype == compute_dtype(x):
                x = x * (scale[:, None] if each else scale)
            else:
                x_factor = scale.expand(len(x))
    return plan, Inputs(x, y, bias, y_bias, row_scale, x_factor)


def _vector(name: str, values: Tensor | None, rows: Tensor) -> Tensor | None:
    if values is None:
        return None
    if values.shape != (len(rows),) or not values.is_floating_point():
        found = f"{values.dtype} {list(values.shape)}"
        raise ShapeError(f"{name} must be a floating point [{len(rows)}], one number a row, found {found}")
    return values.to(compute_dtype(rows))

r"""Log-sum-exp over pairs on an accelerator: a Triton kernel for each direction.

A program owns a block of rows and goes over the columns: one product in the matrix units, a running maximum and sum
forward; the same product, the slopes of its entries and a second product backward. Similarities never leave the chip.
With T = 2NMd, the forward pass takes T, the backward pass 2T for each set that wants a gradient, and 2T for one set,
where a pair adds to both of its rows. Half precision is multiplied as it is and summed in float32; float32 is
multiplied in float32, without TF32.

Imported only where a tensor is on an accelerator and Triton is there. Its arithmetic is tested on the CPU by Triton's
interpreter; it has not been timed on a device.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from repertoire.ops._tiles import Inputs, Plan

__all__ = ["fits", "gradients", "logsumexp"]

#: Widest rows: a block of them stays in the registers and shared memory of a processor.
WIDEST = 256

_LOG2E = 1.4426950408889634
_PAIRS = {"all": 0, "same": 1, "different": 2}


def fits(plan: Plan, inputs: Inputs) -> bool:
    """True if the kernels do what is asked: dot products of rows of up to 256 columns, masked by groups or diagonal."""
    plain = all(value is None for value in (*inputs[2:], plan.mask, plan.exclude, plan.order))
    return (
        plain
        and plan.similarity == "dot"
        and not plan.normalise
        and inputs.x.dtype in (torch.float32, torch.float16, torch.bfloat16)
        and inputs.x.shape[1] <= WIDEST
        and min(len(inputs.x), len(inputs.other)) > 0
    )


def logsumexp(plan: Plan, inputs: Inputs) -> Tensor:
    """Log-sum-exp `[N]` in float32."""
    x, y = inputs.x.contiguous(), inputs.other.contiguous()
    lse = torch.empty(len(x), dtype=torch.float32, device=x.device)
    sizes = _sizes(x)
    grid = (triton.cdiv(len(x), sizes["ROWS"]),)
    _forward[grid](x, y, lse, *_groups(plan, x), len(x), len(y), plan.scale * _LOG2E, **sizes, **_options(plan, x))
    return lse


def gradients(
    plan: Plan, inputs: Inputs, lse: Tensor, grad: Tensor, wants_x: bool, wants_y: bool
) -> list[Tensor | None]:
    """Gradients of x and y; y is None where there is one set."""
    x, y = inputs.x.contiguous(), inputs.other.contiguous()
    # A row without pairs has lse = -inf; +inf in its place makes its softmax zero.
    shift = (lse.float() * _LOG2E).masked_fill(lse == -torch.inf, torch.inf).contiguous()
    weight = grad.float().contiguous()
    groups, y_groups = _groups(plan, x)
    one_set = inputs.y is None
    found: list[Tensor | None] = [None, None]
    if wants_x:
        found[0] = _backward_of(plan, x, y, groups, y_groups, shift, weight, rows=True, columns=one_set)
    if wants_y and not one_set:
        found[1] = _backward_of(plan, y, x, y_groups, groups, shift, weight, rows=False, columns=True)
    return found


def _backward_of(
    plan: Plan,
    x: Tensor,
    y: Tensor,
    groups: Tensor,
    y_groups: Tensor,
    shift: Tensor,
    weight: Tensor,
    *,
    rows: bool,
    columns: bool,
) -> Tensor:
    """The gradient of x, whose rows and/or the rows of y have the log-sum-exp."""
    result = torch.empty_like(x)
    sizes = _sizes(x)
    grid = (triton.cdiv(len(x), sizes["ROWS"]),)
    numbers = len(x), len(y), plan.scale * _LOG2E, plan.scale
    _backward[grid](
        x, y, result, groups, y_groups, shift, weight, *numbers,
        ROW_TERM=rows, COLUMN_TERM=columns, **sizes, **_options(plan, x),
    )  # fmt: skip
    return result


def _sizes(x: Tensor) -> dict[str, int]:
    width = max(16, triton.next_power_of_2(x.shape[1]))
    return {"ROWS": 64 if width > 128 else 128, "COLUMNS": 64, "WIDTH": width, "D": x.shape[1]}


def _options(plan: Plan, x: Tensor) -> dict[str, Any]:
    pairs = _PAIRS[plan.pairs]
    return {
        "EXCLUDE_SELF": plan.exclude_self,
        "PAIRS": pairs,
        "PRECISION": "ieee" if x.dtype == torch.float32 else "tf32",
        "num_warps": 8,
    }


def _groups(plan: Plan, x: Tensor) -> tuple[Tensor, Tensor]:
    """Groups of both sides; anything where there are none, which is not looked at."""
    if plan.groups is None or plan.y_groups is None:
        return x, x
    return plan.groups.contiguous(), plan.y_groups.contiguous()


@triton.jit
def _block(values, index, count, WIDTH: tl.constexpr, D: tl.constexpr):  # type: ignore[no-untyped-def]
    """Rows of a matrix, with zeros where there are none."""
    column = tl.arange(0, WIDTH)
    place = index.to(tl.int64)[:, None] * D + column[None, :]
    return tl.load(values + place, mask=(index < count)[:, None] & (column < D)[None, :], other=0.0)


@triton.jit
def _counted(  # type: ignore[no-untyped-def]
    row, column, n, m, row_groups, y_groups, EXCLUDE_SELF: tl.constexpr, PAIRS: tl.constexpr
):
    """Which pairs of a tile count."""
    keep = (row < n)[:, None] & (column < m)[None, :]
    if EXCLUDE_SELF:
        keep = keep & (row[:, None] != column[None, :])
    if PAIRS > 0:
        column_groups = tl.load(y_groups + column, mask=column < m, other=0)
        equal = row_groups[:, None] == column_groups[None, :]
        keep = keep & (equal if PAIRS == 1 else (equal == 0))
    return keep


@triton.jit
def _forward(  # type: ignore[no-untyped-def]
    x, y, lse, groups, y_groups, n, m, scale,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, WIDTH: tl.constexpr, D: tl.constexpr,
    EXCLUDE_SELF: tl.constexpr, PAIRS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    left = _block(x, row, n, WIDTH, D)
    row_groups = row
    if PAIRS > 0:
        row_groups = tl.load(groups + row, mask=row < n, other=0)
    largest = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    for start in range(0, m, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        right = _block(y, column, m, WIDTH, D)
        tile = tl.dot(left, tl.trans(right), input_precision=PRECISION) * scale
        keep = _counted(row, column, n, m, row_groups, y_groups, EXCLUDE_SELF, PAIRS)
        tile = tl.where(keep, tile, float("-inf"))
        after = tl.maximum(largest, tl.max(tile, 1))
        origin = tl.where(after == float("-inf"), 0.0, after)
        total = total * tl.exp2(largest - origin) + tl.sum(tl.exp2(tile - origin[:, None]), 1)
        largest = after
    # Back from powers of two: 1 / log2(e) is ln(2).
    tl.store(lse + row, (largest + tl.log2(total)) * 0.6931471805599453, mask=row < n)


@triton.jit
def _backward(  # type: ignore[no-untyped-def]
    x, y, result, groups, y_groups, shift, weight, n, m, scale, factor,
    ROW_TERM: tl.constexpr, COLUMN_TERM: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, WIDTH: tl.constexpr, D: tl.constexpr,
    EXCLUDE_SELF: tl.constexpr, PAIRS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    left = _block(x, row, n, WIDTH, D)
    row_groups = row
    if PAIRS > 0:
        row_groups = tl.load(groups + row, mask=row < n, other=0)
    row_shift = tl.zeros([ROWS], tl.float32)
    row_weight = tl.zeros([ROWS], tl.float32)
    if ROW_TERM:
        row_shift = tl.load(shift + row, mask=row < n, other=float("inf"))
        row_weight = tl.load(weight + row, mask=row < n, other=0.0)
    total = tl.zeros([ROWS, WIDTH], tl.float32)
    for start in range(0, m, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        right = _block(y, column, m, WIDTH, D)
        tile = tl.dot(left, tl.trans(right), input_precision=PRECISION) * scale
        keep = _counted(row, column, n, m, row_groups, y_groups, EXCLUDE_SELF, PAIRS)
        slope = tl.zeros([ROWS, COLUMNS], tl.float32)
        if ROW_TERM:
            slope += tl.exp2(tile - row_shift[:, None]) * row_weight[:, None]
        if COLUMN_TERM:
            column_shift = tl.load(shift + column, mask=column < m, other=float("inf"))
            column_weight = tl.load(weight + column, mask=column < m, other=0.0)
            slope += tl.exp2(tile - column_shift[None, :]) * column_weight[None, :]
        slope = tl.where(keep, slope, 0.0)
        total = tl.dot(slope.to(right.dtype), right, total, input_precision=PRECISION)
    place = row.to(tl.int64)[:, None] * D + tl.arange(0, WIDTH)[None, :]
    inside = (row < n)[:, None] & (tl.arange(0, WIDTH) < D)[None, :]
    tl.store(result + place, (total * factor).to(result.dtype.element_ty), mask=inside)

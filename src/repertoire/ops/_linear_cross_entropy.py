r"""Cross-entropy of `features @ weight.T` without its N x C logits.

The classes are walked in tiles, each of some classes against some samples. With T = 2NCd the operations of one product:

=========  ==================================  ===========================================================
pass       work                                memory over features and weight
=========  ==================================  ===========================================================
forward    T, and NC exponentials              a tile, O(N)
backward   3T, and NC exponentials             the gradients, which each tile of classes writes once, a tile
=========  ==================================  ===========================================================

The dense form takes 3T in all, because it keeps NC logits, and as many again for their gradient. At a batch of 256 the
weights of a class are read from memory once for 512 d operations forward: this is bound by the matrix units.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from repertoire.errors import ShapeError
from repertoire.ops._exponentials import Powers, add_powers, joined
from repertoire.ops._rows import unit_rows
from repertoire.ops._tiles import Inputs, Plan, compute_dtype, inverse_lengths, tile_sides
from repertoire.ops._walk import Walk, added

__all__ = ["linear_cross_entropy"]


def linear_cross_entropy(
    features: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    similarity: Literal["dot", "cosine"] = "dot",
    scale: float | Tensor = 1.0,
    margin: Callable[[Tensor], Tensor] | None = None,
    softcap: float | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
    reduction: Literal["mean", "sum", "none"] = "mean",
    tile: int | None = None,
) -> Tensor:
    r"""Cross-entropy of the logits of a linear layer, which are never made as a whole.

    .. math:: \ell_i = \log \sum_c e^{u_{ic}} - (1 - \epsilon)\,u_{it_i} - \frac{\epsilon}{C} \sum_c u_{ic}, \qquad
        u_{ic} = \alpha\,s(x_i, w_c) + b_c

    The idea is that of Wijmans et al., *Cut Your Losses in Large-Vocabulary Language Models* (2024). The gradient of
    the weights is written class by class, once: at the end there are the weights, their gradient, and nothing else
    that grows with the number of classes.

    Args:
        features: float `[N, d]`.
        weight: float `[C, d]`, a row a class, as in :class:`torch.nn.Linear`; of any floating dtype.
        targets: int64 `[N]` in 0..C-1, or `ignore_index`.
        bias: b, float `[C]`.
        similarity: s: "dot" (default), or "cosine" for the normalised softmax.
        scale: alpha, a number, or a tensor without dimensions that may need a gradient.
        margin: changes the similarity of each sample with its own class, before the scale: a function of a tensor
            `[N]`, such as `lambda cosine: cosine - 0.35` (CosFace). The scale must be a number then.
        softcap: c, positive: the logits become :math:`c \tanh(u / c)`; no cap if None.
        label_smoothing: epsilon, in [0, 1]: how much of the target is spread evenly over all classes.
        ignore_index: samples with this target count for nothing.
        reduction: "mean" (default, over the samples that count), "sum", or "none" for `[N]`.
        tile: classes and samples of a tile; chosen for the device if None.

    Returns:
        The loss; float32 for half-precision input, which is summed in float32. Zero for an ignored sample and for the
        mean of none. Differentiable once.

    Raises:
        ShapeError: shapes, dtypes or arguments that do not fit, or (on the CPU) a target that is no class.

    Example:
        >>> import torch
        >>> from repertoire.ops import linear_cross_entropy
        >>> linear_cross_entropy(torch.zeros(2, 3), torch.eye(3), torch.tensor([0, 2]))  # log 3
        tensor(1.0986)
    """
    _check(features, weight, targets, bias, similarity, scale, margin, softcap, label_smoothing, reduction)
    _check_targets(targets, len(weight), ignore_index)
    counted = targets != ignore_index
    targets = targets.long().masked_fill(~counted, -1)
    dtype = torch.promote_types(compute_dtype(weight), compute_dtype(features))
    x = features.to(dtype)
    if similarity == "cosine":
        x = unit_rows(x)
    if isinstance(scale, Tensor):
        x, scale = x * scale.to(dtype), 1.0
    columns, rows = tile_sides(x, len(x)) if tile is None else (tile, tile)
    plan = Plan(
        "dot", float(scale), symmetric=False, tile=columns, tall=rows, normalise=similarity == "cosine", y_ready=True
    )
    options = _Options(plan, margin, softcap, label_smoothing)
    losses = _LinearCrossEntropy.apply(options, targets, x, weight, bias)
    if reduction == "none":
        return losses
    return losses.sum() if reduction == "sum" else losses.sum() / counted.sum().clamp_min(1)


#: Logits are made in units of powers of two, which take a third of the time of powers of e on a CPU.
_LOG2E = math.log2(math.e)


@dataclass(frozen=True)
class _Options:
    plan: Plan
    margin: Callable[[Tensor], Tensor] | None
    softcap: float | None
    smoothing: float

    def walk(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Walk:
        # Classes are the rows of the walk, so that all samples of some classes come one after the other.
        return Walk(self.plan, Inputs(weight, x, bias), fill=None, factor=_LOG2E)

    def target_logits(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Each sample's logit of its own class, in powers of two, before the cap; and the slope of the margin there."""
        own = targets.clamp_min(0)
        rows = self.plan.rows(weight, None, own).to(x.dtype) if len(weight) else torch.zeros_like(x)
        similarity = (x * rows).sum(1)
        slope = None
        if self.margin is not None:
            with torch.enable_grad():
                given = similarity.detach().requires_grad_()
                changed = self.margin(given)
                if changed.shape != given.shape:
                    raise ShapeError(f"margin must give {list(given.shape)}, found {list(changed.shape)}")
                (slope,) = torch.autograd.grad(changed.sum(), given)
            similarity = changed.detach()
        logits = similarity * self.plan.scale
        return (logits if bias is None else logits + bias[own]) * _LOG2E, slope

    def put(self, tile: Tensor, place: Tensor, values: Tensor) -> None:
        """Writes a value for each sample's own class, where that is in the tile. `place` is its row in it."""
        inside = (place >= 0) & (place < len(tile))
        where = place.clamp(0, len(tile) - 1)[None]
        tile.scatter_(0, where, torch.where(inside[None], values[None], tile.gather(0, where)))

    def cap(self, tile: Tensor) -> Tensor:
        if self.softcap is None:
            return tile
        cap = self.softcap * _LOG2E
        return tile.div_(cap).tanh_().mul_(cap)


class _LinearCrossEntropy(torch.autograd.Function):
    """The losses `[N]`. Keeps two numbers a sample."""

    @staticmethod
    def forward(ctx: Any, options: _Options, targets: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            walk = options.walk(x, weight, bias)
            own, slope = options.target_logits(x, weight, bias, targets)

            def share(part: Walk) -> tuple[Powers, Tensor]:
                total, largest = torch.zeros_like(own), torch.full_like(own, -torch.inf)
                sums = torch.zeros_like(own)
                for tile in part:
                    samples = tile.columns
                    if options.margin is not None:
                        options.put(tile.values, targets[samples] - tile.rows.start, own[samples])
                    options.cap(tile.values)
                    if options.smoothing:
                        sums[samples] += tile.values.sum(0)
                    add_powers(Tensor.exp2_, total, largest, samples, tile.values, 0)
                return Powers(total, largest), sums

            powers, shares = zip(*walk.over(share), strict=True)
            total, largest = joined(Tensor.exp2_, powers)
            assert largest is not None
            lse, sums = total.log2().add_(largest), added(shares)
            losses = lse - (1 - options.smoothing) * options.cap(own.clone())
            if options.smoothing:
                losses = losses - sums * (options.smoothing / len(weight))
            losses = losses / _LOG2E
        ctx.save_for_backward(targets, x, weight, bias, lse, own, slope)
        ctx.options = options
        return losses.masked_fill(targets < 0, 0.0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, Tensor | None, Tensor | None, Tensor | None]:
        targets, x, weight, bias, lse, own, margin_slope = ctx.saved_tensors
        options: _Options = ctx.options
        plan, scale = options.plan, options.plan.scale
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad[2:]
        with torch.autocast(x.device.type, enabled=False):
            grad = grad.masked_fill(targets < 0, 0.0)
            grad_weight = torch.empty_like(weight) if wants_weight else None
            grad_bias = torch.zeros_like(bias, dtype=grad.dtype) if bias is not None and wants_bias else None

            def share(part: Walk) -> Tensor | None:
                grad_x = torch.zeros_like(x) if wants_x else None
                strip = x.new_empty(0)
                for tile in part:
                    classes, samples = tile.rows, tile.columns
                    place = targets[samples] - classes.start
                    if margin_slope is not None:
                        options.put(tile.values, place, own[samples])
                    g = _slope(options, tile.values, place, lse[samples], grad[samples], len(weight))
                    if grad_bias is not None:
                        grad_bias[classes] += g.sum(1)
                    if margin_slope is not None:
                        here = g.gather(0, place.clamp(0, len(g) - 1)[None])[0]
                        options.put(g, place, here * margin_slope[samples])
                    if grad_x is not None:
                        grad_x[samples].addmm_(g.T, tile.left, alpha=scale)
                    if grad_weight is None:
                        continue
                    if samples.start == 0:
                        # The rows of a tile of classes are complete before those of the next begin.
                        direct = grad_weight.dtype == x.dtype
                        strip = grad_weight[classes] if direct else x.new_empty(len(tile.left), x.shape[1])
                        torch.addmm(strip, g, tile.right, beta=0, alpha=scale, out=strip)
                    else:
                        strip.addmm_(g, tile.right, alpha=scale)
                    if samples.stop == len(x):
                        if plan.normalise:
                            along = (tile.left * strip).sum(1, keepdim=True)
                            strip.sub_(tile.left * along).mul_(inverse_lengths(weight[classes].to(x.dtype)))
                        if strip.data_ptr() != grad_weight[classes].data_ptr():
                            grad_weight[classes] = strip.to(weight.dtype)
                return grad_x

            found = [part for part in options.walk(x, weight, bias).over(share) if part is not None]
            grad_x = added(found) if found else None
            if grad_weight is not None and not len(x):
                grad_weight.zero_()
        return None, None, grad_x, grad_weight, None if grad_bias is None else grad_bias.to(bias.dtype)


def _slope(options: _Options, values: Tensor, place: Tensor, lse: Tensor, grad: Tensor, classes: int) -> Tensor:
    """dL/d(logit before the cap) of a tile, written over its values."""
    options.cap(values)
    cap_slope = None if options.softcap is None else (values / (options.softcap * _LOG2E)).square_().neg_().add_(1)
    g = values.sub_(lse).exp2_().mul_(grad)
    if options.smoothing:
        g.sub_(grad * (options.smoothing / classes))
    inside = (place >= 0) & (place < len(g))
    own = ((options.smoothing - 1) * grad).masked_fill(~inside, 0.0)
    g.scatter_add_(0, place.clamp(0, len(g) - 1)[None], own[None])
    return g if cap_slope is None else g.mul_(cap_slope)


def _check(
    features: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    similarity: str,
    scale: float | Tensor,
    margin: object,
    softcap: float | None,
    smoothing: float,
    reduction: str,
) -> None:
    if features.ndim != 2 or not features.is_floating_point():
        raise ShapeError(f"features must be a floating point [N, d], found {features.dtype} {list(features.shape)}")
    if weight.ndim != 2 or weight.shape[1] != features.shape[1] or not weight.is_floating_point():
        raise ShapeError(
            f"weight must be a floating point [C, {features.shape[1]}], a row a class, found {weight.dtype} "
            f"{list(weight.shape)}"
        )
    if targets.is_floating_point() or targets.shape != (len(features),):
        raise ShapeError(
            f"targets must be integers [{len(features)}], one a sample, found {targets.dtype} {list(targets.shape)}"
        )
    if bias is not None and bias.shape != (len(weight),):
        raise ShapeError(f"bias must be [{len(weight)}], one a class, found {list(bias.shape)}")
    if similarity not in ("dot", "cosine"):
        raise ShapeError(f"similarity must be 'dot' or 'cosine', found {similarity!r}")
    if isinstance(scale, Tensor) and scale.ndim:
        raise ShapeError(f"scale must be a number or a tensor without dimensions, found {list(scale.shape)}")
    if isinstance(scale, Tensor) and margin is not None:
        raise ShapeError("scale must be a number where there is a margin, which changes what the scale multiplies")
    if softcap is not None and not softcap > 0:
        raise ShapeError(f"softcap must be positive, found {softcap}")
    if not 0 <= smoothing <= 1:
        raise ShapeError(f"label_smoothing must lie in [0, 1], found {smoothing}")
    if reduction not in ("mean", "sum", "none"):
        raise ShapeError(f"reduction must be 'mean', 'sum' or 'none', found {reduction!r}")


def _check_targets(targets: Tensor, classes: int, ignore_index: int) -> None:
    """Looks only at values on the CPU, where it costs no waiting for the device."""
    if targets.device.type != "cpu":
        return
    wrong = ((targets < 0) | (targets >= classes)) & (targets != ignore_index)
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise ShapeError(
            f"targets must lie in 0..{classes - 1} for a weight of {classes} classes (or be {ignore_index}, which is "
            f"ignored), found {int(targets[row])} in row {row}"
        )

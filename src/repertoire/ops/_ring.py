"""Pairs across ranks: chunks of rows travel in a ring, so that no rank ever holds the rows of all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, distributed
from torch.autograd.function import once_differentiable

from repertoire.errors import ShapeError
from repertoire.ops._chosen import Chosen
from repertoire.ops._exponentials import logsumexp, logsumexp_gradients
from repertoire.ops._extremes import Extreme, pair_max, pair_min, search
from repertoire.ops._pairs import LARGEST_BOUND, pair_logsumexp, pair_sum, prepare
from repertoire.ops._ranks import ranks_of
from repertoire.ops._sums import FUNCTIONS, Function, sum_gradients, sum_over
from repertoire.ops._tiles import Inputs, Pairs, Plan, Similarity, Which, make_plan

__all__ = ["ring_logsumexp", "ring_max", "ring_min", "ring_sum"]

if TYPE_CHECKING:
    Group = distributed.ProcessGroup | None


def ring_logsumexp(
    x: Tensor,
    y: Tensor | None = None,
    *,
    group: Group = None,
    similarity: Similarity = "dot",
    scale: float | Tensor = 1.0,
    bias: Tensor | None = None,
    y_bias: Tensor | None = None,
    bound: float | None = None,
    exclude_self: bool = False,
    pairs: Pairs = "all",
    groups: Tensor | None = None,
    y_groups: Tensor | None = None,
    tile: int | None = None,
) -> Tensor:
    """:func:`repertoire.ops.pair_logsumexp` of this rank's rows of x with the rows of y of all ranks.

    Each rank's rows of y travel from rank to rank. A rank reduces the chunk that it holds while the next one arrives,
    and has two chunks in memory, never all. In the backward pass each chunk travels once more, together with its
    gradient, which is complete when it is home. On W ranks each sends W - 1 chunks forward, and W - 1 with W gradients
    backward.

    The gradient that arrives at a row is the sum of what the losses of all ranks send back, so that the mean of the
    parameters' gradients over the ranks (as in data-parallel training) is the gradient of the mean of the losses.

    All ranks of the group must call this together, forward and backward, with the same arguments but for the rows,
    whose number may differ. A scale that is a tensor must be the same on all ranks, and its gradient is this rank's
    share.

    Args:
        x: float `[N, d]`, this rank's rows.
        y: float `[M, d]`, this rank's chunk of what all are compared with; x itself if None.
        group: the ranks; all of them if None. In one process this is `pair_logsumexp`.
        similarity, scale, bias, y_bias, bound: as there; `y_bias` travels with y.
        exclude_self: leave the pairs of a row with itself out; only where y is None.
        pairs, groups, y_groups: as there; groups travel with the rows.
        tile: rows and columns of a tile.

    Returns:
        float `[N]`. Differentiable once.

    Raises:
        ShapeError: shapes, dtypes or arguments that do not fit each other.

    Example:
        >>> import torch
        >>> from repertoire.ops import ring_logsumexp
        >>> ring_logsumexp(torch.eye(3), scale=10.0, exclude_self=True)  # on each rank
        tensor([0.6931, 0.6931, 0.6931])
    """
    which = _which(exclude_self, pairs, groups, y_groups, tile)
    if ranks_of(group) == 1:
        return pair_logsumexp(x, y, similarity=similarity, scale=scale, bias=bias, y_bias=y_bias, bound=bound, **which)
    bounded = bound is not None and bound <= LARGEST_BOUND
    return _run(_Task("logsumexp", bounded=bounded), x, y, group, similarity, scale, bias, y_bias, which)


def ring_sum(
    x: Tensor,
    y: Tensor | None = None,
    function: Function = "exp",
    *,
    group: Group = None,
    similarity: Similarity = "dot",
    scale: float | Tensor = 1.0,
    bias: Tensor | None = None,
    y_bias: Tensor | None = None,
    exclude_self: bool = False,
    pairs: Pairs = "all",
    groups: Tensor | None = None,
    y_groups: Tensor | None = None,
    tile: int | None = None,
) -> Tensor:
    """:func:`repertoire.ops.pair_sum` of this rank's rows of x with those of y of all ranks, for the named functions.

    Chunks and gradients travel as in :func:`repertoire.ops.ring_logsumexp`, whose arguments it shares.
    """
    if function not in FUNCTIONS:
        raise ShapeError(f"function must be one of {', '.join(FUNCTIONS)}, found {function!r}")
    which = _which(exclude_self, pairs, groups, y_groups, tile)
    if ranks_of(group) == 1:
        return pair_sum(x, y, function, similarity=similarity, scale=scale, bias=bias, y_bias=y_bias, **which)
    return _run(_Task("sum", function=function), x, y, group, similarity, scale, bias, y_bias, which)


def ring_max(
    x: Tensor,
    y: Tensor | None = None,
    *,
    group: Group = None,
    similarity: Similarity = "dot",
    exclude_self: bool = False,
    pairs: Pairs = "all",
    groups: Tensor | None = None,
    y_groups: Tensor | None = None,
    tile: int | None = None,
) -> Extreme:
    """:func:`repertoire.ops.pair_max` of this rank's rows of x with the rows of y of all ranks.

    Chunks and gradients travel as in :func:`repertoire.ops.ring_logsumexp`. The indices count the rows of all ranks,
    one rank after the other.
    """
    which = _which(exclude_self, pairs, groups, y_groups, tile)
    if ranks_of(group) == 1:
        return pair_max(x, y, similarity=similarity, **which)
    return Extreme(*_run(_Task("max"), x, y, group, similarity, 1.0, None, None, which))


def ring_min(
    x: Tensor,
    y: Tensor | None = None,
    *,
    group: Group = None,
    similarity: Similarity = "dot",
    exclude_self: bool = False,
    pairs: Pairs = "all",
    groups: Tensor | None = None,
    y_groups: Tensor | None = None,
    tile: int | None = None,
) -> Extreme:
    """:func:`repertoire.ops.pair_min` of this rank's rows of x with the rows of y of all ranks.

    See :func:`repertoire.ops.ring_max`.
    """
    which = _which(exclude_self, pairs, groups, y_groups, tile)
    if ranks_of(group) == 1:
        return pair_min(x, y, similarity=similarity, **which)
    return Extreme(*_run(_Task("min"), x, y, group, similarity, 1.0, None, None, which))


@dataclass(frozen=True)
class _Task:
    """What is reduced."""

    kind: Literal["logsumexp", "sum", "max", "min"]
    bounded: bool = False
    function: str = "exp"


def _which(exclude_self: bool, pairs: Pairs, groups: Tensor | None, y_groups: Tensor | None, tile: int | None) -> Which:
    return Which(exclude_self=exclude_self, pairs=pairs, groups=groups, y_groups=y_groups, tile=tile)


def _run(
    task: _Task,
    x: Tensor,
    y: Tensor | None,
    group: Group,
    similarity: Similarity,
    scale: float | Tensor,
    bias: Tensor | None,
    y_bias: Tensor | None,
    which: Which,
) -> Any:
    # Where the scale is a tensor it multiplies x alone: the rows of y that travel are those of another rank.
    symmetric = not isinstance(scale, Tensor)
    plan, inputs = prepare(x, y, similarity, scale, bias, y_bias, symmetric=symmetric, which=which)
    wanted = torch.is_grad_enabled() and (inputs.other.requires_grad or (y_bias is not None and y_bias.requires_grad))
    return _Ring.apply(task, _Chunks(group, len(inputs.other), wanted, x.device), plan, which.get("tile"), *inputs)


class _Chunks:
    """The ring: who has how many rows, and the passing on of tensors."""

    def __init__(self, group: Group, rows: int, wanted: bool, device: torch.device) -> None:
        self.group = group
        self.world = distributed.get_world_size(group)
        self.rank = distributed.get_rank(group)
        facts = torch.tensor([rows, int(wanted)], device=device)
        everyone = [torch.zeros_like(facts) for _ in range(self.world)]
        distributed.all_gather(everyone, facts, group=group)
        self.rows, wanting = zip(*(each.tolist() for each in everyone), strict=True)
        #: Whether any rank waits for the gradient of its rows of y.
        self.wanted = any(wanting)
        self.starts = [sum(self.rows[:rank]) for rank in range(self.world)]

    def owner(self, step: int) -> int:
        """Whose chunk is here after so many steps."""
        return (self.rank - step) % self.world

    def send(self, tensors: Sequence[Tensor | None], step: int) -> tuple[list[Tensor | None], list[Any]]:
        """Starts to pass the tensors of this step on; gives what will arrive, and what to wait for."""
        rows = self.rows[self.owner(step + 1)]
        arriving = [None if t is None else t.new_empty(rows, *t.shape[1:]) for t in tensors]
        onward, back = ((self.rank + shift) % self.world for shift in (1, -1))
        if self.group is not None:
            onward, back = (distributed.get_global_rank(self.group, r) for r in (onward, back))
        operations = []
        for leaving, coming in zip(tensors, arriving, strict=True):
            if leaving is not None and coming is not None:
                operations += [
                    distributed.P2POp(distributed.isend, leaving.contiguous(), onward, self.group),
                    distributed.P2POp(distributed.irecv, coming, back, self.group),
                ]
        return arriving, distributed.batch_isend_irecv(operations)

    def visit(self, tensors: Sequence[Tensor | None]) -> Iterator[tuple[int, list[Tensor | None]]]:
        """Each chunk and its owner, one's own first; the next one arrives while this one is looked at."""
        here: list[Tensor | None] = list(tensors)
        for step in range(self.world):
            arriving, waiting = self.send(here, step) if step + 1 < self.world else ([], [])
            yield self.owner(step), here
            for work in waiting:
                work.wait()
            here = arriving


class _Ring(torch.autograd.Function):
    """A reduction over the chunks of all ranks. Keeps its inputs and one or two numbers a row."""

    @staticmethod
    def forward(
        ctx: Any, task: _Task, chunks: _Chunks, plan: Plan, tile: int | None, *tensors: Tensor | None
    ) -> Tensor | tuple[Tensor, Tensor]:
        inputs = Inputs(*tensors)  # type: ignore[arg-type]
        x = inputs.x
        best: Tensor | None = None
        index = torch.full((len(x),), -1, dtype=torch.int64, device=x.device)
        for owner, (rows, groups, bias) in chunks.visit(_travelling(plan, inputs)):
            local, given = _local(chunks, owner, plan, tile, inputs, rows, groups, bias)
            if task.kind == "logsumexp":
                found = logsumexp(local, task.bounded, given)
                best = found if best is None else torch.logaddexp(best, found)
            elif task.kind == "sum":
                found = sum_over(local, task.function, None, given)
                best = found if best is None else best + found
            else:
                largest = task.kind == "max"
                place = search(local, given, 1, largest)
                worst = -torch.inf if largest else torch.inf
                values = Chosen.apply(local, place, worst, given.x, given.y)[:, 0]
                if best is None:
                    best = torch.full_like(values, worst)
                better = values > best if largest else values < best
                best = torch.where(better, values, best)
                index = torch.where(better, place[:, 0] + chunks.starts[owner], index)
        assert best is not None
        ctx.save_for_backward(best, index, *tensors)
        ctx.task, ctx.chunks, ctx.plan, ctx.tile = task, chunks, plan, tile
        if task.kind in ("max", "min"):
            ctx.mark_non_differentiable(index)
            return best, index
        return best

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        best, index, *tensors = ctx.saved_tensors
        task, chunks, plan, inputs = ctx.task, ctx.chunks, ctx.plan, Inputs(*tensors)
        wants = Inputs(*ctx.needs_input_grad[4:])
        within = inputs.y is None
        # A rank that wants no gradient of its own passes those of others on.
        passing = chunks.wanted
        sums: list[Tensor | None] = [None, None]
        own: list[Tensor | None] = [None] * len(inputs)
        for owner, (rows, groups, bias) in chunks.visit(_travelling(plan, inputs)):
            local, given = _local(chunks, owner, plan, ctx.tile, inputs, rows, groups, bias)
            across = passing and given.y is not None
            own_wants = (wants.x, across, wants.bias, passing and bias is not None, wants.row_scale, wants.x_factor)
            asked = [bool(want) for want in own_wants]
            found: list[Tensor | None]
            if task.kind == "logsumexp":
                found = logsumexp_gradients(local, task.bounded, given, best, grad, asked)
            elif task.kind == "sum":
                found = sum_gradients(local, task.function, None, given, (), grad, False, asked, ())[1]
            else:
                place = index - chunks.starts[owner]
                place = place.masked_fill((place < 0) | (place >= chunks.rows[owner]), -1)
                found = _chosen_gradients(local, given, place, grad)
            # What belongs to a chunk travels with it; the rest stays.
            staying = Inputs(*found)._replace(y=None, y_bias=None)  # type: ignore[arg-type]
            own = [_plus(o, f) for o, f in zip(own, staying, strict=True)]
            if passing:
                # Within x, the gradient of one's own chunk is part of that of x.
                more = torch.zeros_like(given.x) if given.y is None else found[1]
                sums = [_plus(sums[0], None if more is None else more.to(best.dtype)), _plus(sums[1], found[3])]
                sums = _passed_on(chunks, sums, owner)
        grad_rows, grad_y_bias = sums
        if grad_rows is not None and within:
            own[0] = _plus(own[0], grad_rows.to(inputs.x.dtype))
        elif grad_rows is not None and wants.y:
            own[1] = grad_rows.to(inputs.x.dtype)
        if not wants.x:
            own[0] = None
        own[3] = grad_y_bias if wants.y_bias else None
        return None, None, None, None, *own


def _travelling(plan: Plan, inputs: Inputs) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """What goes from rank to rank: rows, their groups, and what is added to their similarities."""
    return inputs.other.detach(), plan.y_groups, inputs.y_bias


def _local(
    chunks: _Chunks,
    owner: int,
    plan: Plan,
    tile: int | None,
    inputs: Inputs,
    rows: Tensor | None,
    groups: Tensor | None,
    bias: Tensor | None,
) -> tuple[Plan, Inputs]:
    """The plan and the inputs of this rank's rows with a chunk."""
    if owner == chunks.rank:
        return plan, inputs
    which = Which(pairs=plan.pairs, groups=plan.groups, y_groups=groups, tile=tile)
    # Rows of unit length have been made so before, unless they are to be made so tile by tile.
    similarity: Similarity = "cosine" if plan.normalise else plan.similarity
    local = make_plan(inputs.x, rows, similarity, plan.scale, False, which)
    return local, inputs._replace(y=rows, y_bias=bias)


def _chosen_gradients(plan: Plan, inputs: Inputs, place: Tensor, grad: Tensor) -> list[Tensor | None]:
    with torch.enable_grad():
        x = inputs.x.detach().requires_grad_()
        y = None if inputs.y is None else inputs.y.detach().requires_grad_()
        values = Chosen.apply(plan, place[:, None], 0.0, x, y)[:, 0]
    found = torch.autograd.grad(values, [x] if y is None else [x, y], grad)
    return [found[0], None if y is None else found[1], None, None, None, None]


def _passed_on(chunks: _Chunks, sums: Sequence[Tensor | None], owner: int) -> list[Tensor | None]:
    """Passes the gradient of a chunk on, after it; the next one's arrives."""
    step = (chunks.rank - owner) % chunks.world
    arriving, waiting = chunks.send(sums, step)
    for work in waiting:
        work.wait()
    return arriving


def _plus(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b

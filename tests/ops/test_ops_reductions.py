"""Every reduction against the dense form in float64, on shapes that do not divide the tile."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from repertoire.errors import ShapeError
from repertoire.ops import (
    _tiles,
    pair_count,
    pair_hardest,
    pair_logsumexp,
    pair_max,
    pair_min,
    pair_sum,
    pair_topk,
    pair_values,
)

SETTINGS = settings(max_examples=25, deadline=None)
SIMILARITIES = ("dot", "cosine", "euclidean", "sqeuclidean")
NAMED = {
    "exp": torch.exp,
    "sigmoid": torch.sigmoid,
    "softplus": F.softplus,
    "hinge": torch.relu,
    "squared-hinge": lambda u: torch.relu(u) ** 2,
}


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def similarities(x: Tensor, y: Tensor, kind: str) -> Tensor:
    """Pair by pair."""
    table = []
    for a in x:
        row = []
        for b in y:
            if kind == "dot":
                row.append((a * b).sum())
            elif kind == "cosine":
                row.append((a * b).sum() / (a.norm() * b.norm()))
            else:
                square = ((a - b) ** 2).sum()
                # A distance of zero has no slope.
                root = square.sqrt() if square > 0 else square * 0
                row.append(square if kind == "sqeuclidean" else root)
        table.append(torch.stack(row) if row else x.new_zeros(0))
    return torch.stack(table) if table else x.new_zeros(0, len(y))


class Case:
    """Random rows, and which pairs count, as arguments and as a table."""

    def __init__(self, seed: int, n: int, m: int | None, which: str, tile: int, width: int = 3) -> None:
        self.x = draw(seed, n, width).requires_grad_()
        self.y = None if m is None else draw(seed + 1, m, width).requires_grad_()
        self.other = self.x if self.y is None else self.y
        m = len(self.other)
        generator = torch.Generator().manual_seed(seed)
        groups, y_groups = (torch.randint(3, (k,), generator=generator) - 1 for k in (n, m))
        keep = torch.ones(n, m, dtype=torch.bool)
        self.options: dict = {"tile": tile}
        if which == "self" and self.y is None:
            self.options["exclude_self"] = True
            keep.fill_diagonal_(False)
        elif which in ("same", "different"):
            self.options |= {"pairs": which, "groups": groups}
            if self.y is None:
                y_groups = groups
            else:
                self.options["y_groups"] = y_groups
            keep = (groups[:, None] == y_groups) == (which == "same")
        elif which == "exclude":
            exclude = torch.randint(-1, max(m, 1), (n, 2), generator=generator)
            self.options["exclude"] = exclude
            for i in range(n):
                for j in exclude[i].tolist():
                    if 0 <= j < m:
                        keep[i, j] = False
        elif which == "mask":
            table = torch.rand(n, m, generator=generator) < 0.6
            self.options["mask"] = lambda tile, rows, columns: table[rows, columns]
            keep = table
        self.keep = keep

    @property
    def leaves(self) -> list[Tensor]:
        return [self.x] if self.y is None else [self.x, self.y]


WHICH = st.sampled_from(["all", "self", "same", "different", "exclude", "mask"])
CASE = {
    "seed": st.integers(0, 1000),
    "n": st.integers(0, 8),
    "m": st.one_of(st.none(), st.integers(0, 7)),
    "which": WHICH,
    "tile": st.integers(1, 5),
    "similarity": st.sampled_from(SIMILARITIES),
}


def compare(found: Tensor, expected: Tensor, leaves: list[Tensor]) -> None:
    """Values, and gradients of a weighted sum of the finite ones."""
    torch.testing.assert_close(found, expected)
    weights = torch.linspace(-1, 2, found.numel(), dtype=found.dtype).view(found.shape)

    def gradients(values: Tensor) -> list[Tensor]:
        total = (values.masked_fill(values.isinf(), 0.0) * weights).sum()
        if not total.requires_grad:
            return [torch.zeros_like(t) for t in leaves]
        grads = torch.autograd.grad(total, leaves, allow_unused=True, retain_graph=True)
        return [torch.zeros_like(t) if g is None else g for t, g in zip(leaves, grads, strict=True)]

    # Distances from the expanded square lose half of the digits where they are small.
    torch.testing.assert_close(gradients(found), gradients(expected), rtol=1e-6, atol=1e-6)


@SETTINGS
@given(**CASE, scaled=st.sampled_from(["number", "tensor", "each"]), biased=st.booleans())
def test_logsumexp(seed, n, m, which, tile, similarity, scaled, biased):
    case = Case(seed, n, m, which, tile)
    m = len(case.other)
    scale = {
        "number": -1.3,
        "tensor": torch.tensor(0.7, dtype=torch.float64, requires_grad=True),
        "each": (draw(seed, n).abs() + 0.1).requires_grad_(),
    }[scaled]
    bias, y_bias = (draw(seed, k).requires_grad_() if biased else None for k in (n, m))
    found = pair_logsumexp(case.x, case.y, similarity=similarity, scale=scale, bias=bias, y_bias=y_bias, **case.options)
    u = similarities(case.x, case.other, similarity) * (scale[:, None] if scaled == "each" else scale)
    if biased:
        u = u + bias[:, None] + y_bias
    rows = [r[k].logsumexp(0) if k.any() else r.new_tensor(-torch.inf) for r, k in zip(u, case.keep, strict=True)]
    expected = torch.stack(rows) if rows else u.sum(1)
    leaves = [*case.leaves, *(t for t in (scale, bias, y_bias) if isinstance(t, Tensor))]
    compare(found, expected, leaves)


@SETTINGS
@given(**CASE, function=st.sampled_from([*NAMED, "own"]), weighted=st.booleans())
def test_sum(seed, n, m, which, tile, similarity, function, weighted):
    case = Case(seed, n, m, which, tile)
    m = len(case.other)
    bias = draw(seed, n).requires_grad_() if weighted else None
    weight = draw(seed + 2, m).requires_grad_() if weighted else None
    power = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    own = lambda u, rows, columns, power: torch.tanh(u * power)  # noqa: E731
    found = pair_sum(
        case.x,
        case.y,
        own if function == "own" else function,
        similarity=similarity,
        scale=0.8,
        bias=bias,
        y_weight=weight,
        parameters=(power,) if function == "own" else (),
        **case.options,
    )
    u = similarities(case.x, case.other, similarity) * 0.8
    if weighted:
        u = u + bias[:, None]
    values = torch.tanh(u * power) if function == "own" else NAMED[function](u)
    if weighted:
        values = values * weight
    expected = values.where(case.keep, 0.0).sum(1)
    leaves = [*case.leaves, *(t for t in (bias, weight) if t is not None), *([power] if function == "own" else [])]
    compare(found, expected, leaves)


@SETTINGS
@given(**CASE, largest=st.booleans())
def test_extreme(seed, n, m, which, tile, similarity, largest):
    case = Case(seed, n, m, which, tile)
    found = (pair_max if largest else pair_min)(case.x, case.y, similarity=similarity, **case.options)
    s = similarities(case.x, case.other, similarity)
    worst = -torch.inf if largest else torch.inf
    masked = s.masked_fill(~case.keep, worst)
    empty = ~case.keep.any(1)
    if masked.shape[1]:
        expected = masked.amax(1) if largest else masked.amin(1)
        place = (masked.argmax(1) if largest else masked.argmin(1)).masked_fill(empty, -1)
        if not (similarity in ("dot", "cosine") or which != "all" or largest or case.y is not None):
            place = found.indices  # the row itself, or its copy
        assert torch.equal(found.indices, place)
    else:
        expected = s.new_full((n,), worst)
        assert (found.indices == -1).all()
    compare(found.values, expected, case.leaves)


@SETTINGS
@given(**CASE, largest=st.booleans(), k=st.integers(1, 6))
def test_topk(seed, n, m, which, tile, similarity, largest, k):
    case = Case(seed, n, m, which, tile)
    found = pair_topk(case.x, case.y, k, largest=largest, similarity=similarity, **case.options)
    s = similarities(case.x, case.other, similarity)
    worst = -torch.inf if largest else torch.inf
    padded = torch.cat([s.masked_fill(~case.keep, worst), s.new_full((n, k), worst)], dim=1)
    expected = padded.sort(dim=1, descending=largest).values[:, :k]
    compare(found.values, expected, case.leaves)
    assert torch.equal(found.indices == -1, expected == worst)
    at = s.detach().gather(1, found.indices.clamp_min(0)) if s.shape[1] else expected
    torch.testing.assert_close(at.masked_fill(found.indices < 0, worst), expected)


@SETTINGS
@given(**CASE, relation=st.sampled_from([">", ">=", "<", "<="]), each=st.booleans())
def test_count(seed, n, m, which, tile, similarity, relation, each):
    case = Case(seed, n, m, which, tile)
    threshold = draw(seed + 3, n) if each else 0.4
    found = pair_count(case.x, case.y, threshold, relation=relation, similarity=similarity, **case.options)
    s = similarities(case.x, case.other, similarity)
    limit = threshold[:, None] if each else threshold
    holds = {">": s > limit, ">=": s >= limit, "<": s < limit, "<=": s <= limit}[relation]
    assert torch.equal(found, (holds & case.keep).sum(1))


@SETTINGS
@given(
    seed=st.integers(0, 1000),
    n=st.integers(0, 9),
    m=st.one_of(st.none(), st.integers(0, 7)),
    similarity=st.sampled_from(SIMILARITIES),
    size=st.sampled_from([8 * 9, 2**20]),
)
def test_hardest(seed, n, m, similarity, size):
    x = draw(seed, n, 3).requires_grad_()
    y = None if m is None else draw(seed + 1, m, 3).requires_grad_()
    other = x if y is None else y
    generator = torch.Generator().manual_seed(seed)
    groups, y_groups = (torch.randint(3, (k,), generator=generator) - 1 for k in (n, len(other)))
    given = {"groups": groups} if y is None else {"groups": groups, "y_groups": y_groups}
    with pytest.MonkeyPatch.context() as patch:
        # Many tiles, or one.
        patch.setitem(_tiles._TILE_BYTES, "cpu", size)
        patch.setattr(_tiles, "_SMALLEST_TILE", 2)
        found = pair_hardest(x, y, similarity=similarity, **given)
    s = similarities(x, other, similarity)
    same = groups[:, None] == (groups if y is None else y_groups)
    own = same & ~torch.eye(n, dtype=torch.bool) if y is None else same
    far = similarity in ("euclidean", "sqeuclidean")
    for extreme, keep, largest in ((found.same, own, far), (found.different, ~same, not far)):
        worst = -torch.inf if largest else torch.inf
        masked = torch.cat([s.masked_fill(~keep, worst), s.new_full((n, 1), worst)], dim=1)
        expected = masked.amax(1) if largest else masked.amin(1)
        assert torch.equal(extreme.indices == -1, ~keep.any(1))
        compare(extreme.values, expected, [x] if y is None else [x, y])


@SETTINGS
@given(**{k: v for k, v in CASE.items() if k not in ("which",)}, k=st.one_of(st.none(), st.integers(0, 3)))
def test_values(seed, n, m, tile, similarity, k):
    case = Case(seed, n, m, "all", tile)
    count = len(case.other)
    shape = (n,) if k is None else (n, k)
    index = torch.randint(-1, max(count, 0) or 0 if count else 0, shape, generator=torch.Generator().manual_seed(seed))
    found = pair_values(case.x, case.y, index, similarity=similarity, missing=7.0)
    s = similarities(case.x, case.other, similarity)
    flat = index[:, None] if k is None else index
    chosen = s.gather(1, flat.clamp_min(0)) if count else s.new_zeros(flat.shape)
    compare(found, chosen.masked_fill(flat < 0, 7.0).view(shape), case.leaves)


@pytest.mark.parametrize(
    ("similarity", "which"),
    [("dot", "self"), ("cosine", "same"), ("euclidean", "same"), ("sqeuclidean", "exclude"), ("euclidean", "mask")],
)
@pytest.mark.parametrize("two", [False, True])
def test_gradients_and_their_gradients(similarity, which, two):
    case = Case(3, 5, 4 if two else None, which, 2)
    extra = [draw(k, s).requires_grad_() for k, s in ((5, 5), (6, len(case.other)), (7, len(case.other)))]
    scale = torch.tensor(0.9, dtype=torch.float64, requires_grad=True)

    def lse(scale, bias, y_bias, *rows):
        y = rows[1] if two else None
        values = pair_logsumexp(
            rows[0], y, similarity=similarity, scale=scale, bias=bias, y_bias=y_bias, **case.options
        )
        return values.masked_fill(values == -torch.inf, 0.0)

    def total(weight, bias, *rows):
        y = rows[1] if two else None
        own = lambda u, rows, columns, w: torch.sin(u + w.sum())  # noqa: E731
        return torch.stack(
            [
                pair_sum(rows[0], y, "softplus", similarity=similarity, bias=bias, y_weight=weight, **case.options),
                pair_sum(rows[0], y, own, similarity=similarity, parameters=(weight,), **case.options),
                pair_sum(rows[0], y, "sigmoid", similarity=similarity, **case.options),
            ]
        )

    def extremes(*rows):
        y = rows[1] if two else None
        top = pair_topk(rows[0], y, 2, similarity=similarity, **case.options).values
        return top.masked_fill(top == -torch.inf, 0.0)

    for function, inputs in (
        (lse, (scale, extra[0], extra[1], *case.leaves)),
        (total, (extra[2], extra[0], *case.leaves)),
        (extremes, tuple(case.leaves)),
    ):
        assert torch.autograd.gradcheck(function, inputs, fast_mode=True)
        assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("two", [False, True])
def test_half_precision_is_summed_in_float32(similarity, dtype, two):
    x, y = draw(0, 40, 8).to(dtype), draw(1, 30, 8).to(dtype) if two else None

    def everything(x, y, scale):
        return [
            pair_logsumexp(x, y, similarity=similarity, scale=scale, exclude_self=not two, tile=16),
            pair_sum(x, y, "sigmoid", similarity=similarity, scale=scale, exclude_self=not two, tile=16),
            pair_topk(x, y, 3, similarity=similarity, exclude_self=not two, tile=16).values,
        ]

    leaves, exact = (
        [t.detach().to(d).requires_grad_() for t in (x, y) if t is not None] for d in (dtype, torch.float64)
    )
    scale, exact_scale = (torch.tensor(1.5, dtype=d, requires_grad=True) for d in (dtype, torch.float64))
    found = everything(leaves[0], leaves[1] if two else None, scale)
    expected = everything(exact[0], exact[1] if two else None, exact_scale)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-4)
    sum(a.sum() for a in found).backward()
    sum(b.sum() for b in expected).backward()
    for a, b in zip([*leaves, scale], [*exact, exact_scale], strict=True):
        assert a.grad.dtype == dtype
        # Rounded three times, as large as its largest entry.
        torch.testing.assert_close(a.grad.double(), b.grad, rtol=1e-2, atol=5e-3 * float(b.grad.abs().max()))


def test_equal_rows_have_distance_zero_and_no_gradient():
    x = torch.ones(3, 4, requires_grad=True)
    total = pair_sum(x, function="exp", similarity="euclidean", scale=-1.0)
    assert total.tolist() == [3.0, 3.0, 3.0]
    (gradient,) = torch.autograd.grad(total.sum() + pair_max(x, similarity="euclidean").values.sum(), x)
    assert not gradient.any()


def test_zero_rows_are_orthogonal_to_everything():
    x = torch.zeros(2, 3, requires_grad=True)
    for dtype in (torch.float32, torch.bfloat16):
        values = pair_max(x.to(dtype), torch.eye(3, dtype=dtype), similarity="cosine").values
        assert values.tolist() == [0.0, 0.0]
        assert not torch.autograd.grad(values.sum(), x)[0].any()


X = torch.ones(2, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pair_sum(X, similarity="manhattan"), "found 'manhattan'"),
        (lambda: pair_sum(X, function="cube"), "function must be one of exp, sigmoid"),
        (lambda: pair_sum(X, parameters=(X,)), "parameters are for a function of your own"),
        (lambda: pair_sum(X, function=lambda u, rows, columns: u.sum(1)), r"\[2, 2\] for this tile, found \[2\]"),
        (lambda: pair_sum(X, bias=torch.ones(3)), r"bias must be a floating point \[2\]"),
        (lambda: pair_sum(X, y_weight=torch.ones(2, dtype=torch.int64)), "y_weight must be a floating point"),
        (lambda: pair_sum(X, scale=torch.ones(3)), r"scale must be a number or \[2\]"),
        (lambda: pair_max(X, mask=lambda u, rows, columns: u), r"mask must give bool \[2, 2\]"),
        (lambda: pair_max(X, exclude=torch.ones(3, dtype=torch.int64)), r"exclude must be int64 \[2\]"),
        (lambda: pair_max(X, X, exclude_self=True), r"give exclude=torch.arange"),
        (lambda: pair_hardest(X, groups=None), "groups must be int64"),
        (lambda: pair_topk(X, k=0), "k must be 1 or more"),
        (lambda: pair_count(X, relation="=="), "relation must be one of"),
        (lambda: pair_count(X, threshold=torch.ones(3)), r"threshold must be a number or \[2\]"),
        (lambda: pair_values(X, None, torch.ones(3)), r"index must be int64 \[2\]"),
    ],
)
def test_arguments_that_do_not_fit(call, message):
    with pytest.raises(ShapeError, match=message):
        call()


def test_unknown_arguments_are_refused():
    with pytest.raises(TypeError, match="unexpected arguments"):
        pair_sum(X, exclude_itself=True)

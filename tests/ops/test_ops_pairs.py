from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from repertoire.errors import ShapeError
from repertoire.ops import LARGEST_BOUND, pair_logsumexp

SETTINGS = settings(max_examples=25, deadline=None)


def rows(seed: int, count: int, width: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, width, generator=generator, dtype=torch.float64)
    return (x / x.norm(dim=1, keepdim=True)).to(dtype)


def counted(
    n: int, m: int, exclude_self: bool, pairs: str, groups: Tensor | None, y_groups: Tensor | None
) -> list[list[bool]]:
    """Which pairs count, one at a time."""
    table = []
    for i in range(n):
        row = []
        for j in range(m):
            keep = not (exclude_self and i == j)
            if pairs != "all":
                equal = int(groups[i]) == int(y_groups[j])
                keep = keep and (equal if pairs == "same" else not equal)
            row.append(keep)
        table.append(row)
    return table


def reference(x: Tensor, y: Tensor, scale: float | Tensor, keep: list[list[bool]]) -> Tensor:
    """Row by row, pair by pair."""
    result = []
    for i in range(len(x)):
        terms = [torch.exp(scale * (x[i] * y[j]).sum()) for j in range(len(y)) if keep[i][j]]
        result.append(torch.stack(terms).sum().log() if terms else torch.tensor(-torch.inf, dtype=x.dtype))
    return torch.stack(result) if result else x.new_zeros(0)


def gradients(lse: Tensor, weights: Tensor, *inputs: Tensor) -> list[Tensor]:
    """Gradients of a weighted sum of the finite entries."""
    total = (lse.masked_fill(lse == -torch.inf, 0.0) * weights).sum()
    if not total.requires_grad:
        return [torch.zeros_like(i) for i in inputs]
    found = torch.autograd.grad(total, inputs, allow_unused=True)
    return [torch.zeros_like(i) if g is None else g for i, g in zip(inputs, found, strict=True)]


@SETTINGS
@given(
    n=st.integers(0, 9),
    width=st.integers(1, 5),
    tile=st.integers(1, 5),
    scale=st.sampled_from([0.5, 3.0, 20.0]),
    bounded=st.booleans(),
    exclude_self=st.booleans(),
    pairs=st.sampled_from(["all", "same", "different"]),
    seed=st.integers(0, 1000),
)
def test_one_set_is_the_dense_form(n, width, tile, scale, bounded, exclude_self, pairs, seed):
    x = rows(seed, n, width).requires_grad_()
    groups = None if pairs == "all" else torch.randint(3, (n,), generator=torch.Generator().manual_seed(seed)) - 1
    keep = counted(n, n, exclude_self, pairs, groups, groups)
    bound = scale if bounded else None
    lse = pair_logsumexp(x, scale=scale, bound=bound, exclude_self=exclude_self, pairs=pairs, groups=groups, tile=tile)
    expected = reference(x, x, scale, keep)
    torch.testing.assert_close(lse, expected)
    weights = torch.linspace(-1, 2, n, dtype=x.dtype)
    torch.testing.assert_close(gradients(lse, weights, x), gradients(expected, weights, x))


@SETTINGS
@given(
    n=st.integers(0, 7),
    m=st.integers(0, 8),
    tile=st.integers(1, 5),
    scale=st.sampled_from([0.5, 20.0]),
    bounded=st.booleans(),
    pairs=st.sampled_from(["all", "same", "different"]),
    seed=st.integers(0, 1000),
)
def test_two_sets_are_the_dense_form(n, m, tile, scale, bounded, pairs, seed):
    x, y = rows(seed, n, 3).requires_grad_(), rows(seed + 1, m, 3).requires_grad_()
    generator = torch.Generator().manual_seed(seed)
    groups, y_groups = torch.randint(3, (n,), generator=generator), torch.randint(3, (m,), generator=generator)
    keep = counted(n, m, False, pairs, groups, y_groups)
    given = {} if pairs == "all" else {"pairs": pairs, "groups": groups, "y_groups": y_groups}
    lse = pair_logsumexp(x, y, scale=scale, bound=scale if bounded else None, tile=tile, **given)
    expected = reference(x, y, scale, keep)
    torch.testing.assert_close(lse, expected)
    weights = torch.linspace(-1, 2, n, dtype=x.dtype)
    torch.testing.assert_close(gradients(lse, weights, x, y), gradients(expected, weights, x, y))


@pytest.mark.parametrize("bound", [5.0, None])
def test_gradcheck_one_set(bound):
    x = rows(0, 5, 3).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: pair_logsumexp(x, scale=3.0, bound=bound, exclude_self=True, tile=2), (x,)
    )


@pytest.mark.parametrize("bound", [5.0, None])
def test_gradcheck_two_sets(bound):
    x, y = rows(0, 5, 3).requires_grad_(), rows(1, 4, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: pair_logsumexp(x, y, scale=3.0, bound=bound, tile=2), (x, y))


def test_gradcheck_learnable_scale():
    x, y = rows(0, 5, 3).requires_grad_(), rows(1, 4, 3).requires_grad_()
    scale = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, y, s: pair_logsumexp(x, y, scale=s, tile=2), (x, y, scale))
    assert torch.autograd.gradcheck(lambda x, s: pair_logsumexp(x, scale=s, bound=2.1, tile=2), (x, scale))


@pytest.mark.parametrize("bound", [3.0, None])
def test_a_scale_that_is_a_tensor_is_the_same_scale(bound):
    x, y = rows(0, 5, 3), rows(1, 4, 3)
    scale = torch.tensor(3.0)
    torch.testing.assert_close(pair_logsumexp(x, scale=scale, bound=bound), pair_logsumexp(x, scale=3.0))
    torch.testing.assert_close(pair_logsumexp(x, y, scale=scale, bound=bound), pair_logsumexp(x, y, scale=3.0))


def test_no_gradient_for_a_fixed_memory():
    x, y = rows(0, 5, 3).requires_grad_(), rows(1, 4, 3)
    pair_logsumexp(x, y, bound=1.0).sum().backward()
    assert x.grad is not None
    assert y.grad is None


def test_small_temperature_needs_the_running_maximum():
    # exp(500) is no float32: the promise is not used beyond the largest bound.
    x = rows(0, 6, 4, torch.float32).requires_grad_()
    lse = pair_logsumexp(x, scale=500.0, bound=500.0, tile=4)
    torch.testing.assert_close(lse.double(), torch.logsumexp(500.0 * (x.double() @ x.double().T), 1))
    lse.sum().backward()
    assert x.grad.isfinite().all()


def test_largest_bound_is_accurate():
    # Opposite rows reach both ends of the range.
    x = torch.cat([rows(0, 8, 3), -rows(0, 8, 3)]).float()
    lse = pair_logsumexp(x, scale=LARGEST_BOUND, bound=LARGEST_BOUND, exclude_self=True, tile=5)
    similarities = LARGEST_BOUND * (x.double() @ x.double().T)
    similarities.fill_diagonal_(-torch.inf)
    torch.testing.assert_close(lse.double(), similarities.logsumexp(1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bound", [10.0, None])
def test_half_precision_is_summed_in_float32(dtype, bound):
    x = rows(0, 40, 8, dtype).requires_grad_()
    lse = pair_logsumexp(x, scale=10.0, bound=bound, exclude_self=True, tile=16)
    assert lse.dtype == torch.float32
    exact = x.detach().double().requires_grad_()
    expected = (10.0 * exact @ exact.T).masked_fill(torch.eye(40, dtype=torch.bool), -torch.inf).logsumexp(1)
    torch.testing.assert_close(lse.double(), expected, rtol=1e-5, atol=1e-5)
    lse.sum().backward()
    expected.sum().backward()
    assert x.grad.dtype == dtype
    torch.testing.assert_close(x.grad.double(), exact.grad, rtol=2e-2, atol=2e-2)


def test_autocast_does_not_reach_the_tiles():
    x = rows(0, 20, 8, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = pair_logsumexp(x, scale=10.0, bound=10.0)
    torch.testing.assert_close(inside, pair_logsumexp(x, scale=10.0, bound=10.0), rtol=0, atol=0)


def test_default_tile_does_not_change_the_result():
    x = rows(0, 700, 8, torch.float32)
    dense = (10.0 * x @ x.T).logsumexp(1)
    torch.testing.assert_close(pair_logsumexp(x, scale=10.0, bound=10.0), dense)
    torch.testing.assert_close(pair_logsumexp(x, scale=10.0), dense)


def test_rows_without_pairs():
    x = rows(0, 1, 3).requires_grad_()
    for bound in (1.0, None):
        lse = pair_logsumexp(x, bound=bound, exclude_self=True)
        assert lse.tolist() == [-torch.inf]
        (grad,) = torch.autograd.grad(lse.sum(), x)
        assert grad.tolist() == [[0.0, 0.0, 0.0]]


X = torch.ones(2, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": torch.ones(3)}, r"x must be a floating point \[N, d\], found torch.float32 \[3\]"),
        ({"x": torch.ones(2, 3, dtype=torch.int64)}, "found torch.int64"),
        ({"y": torch.ones(2, 4)}, r"y must be torch.float32 \[M, 3\] on cpu like x"),
        ({"y": X.double()}, "found torch.float64"),
        ({"y": X, "exclude_self": True}, "exclude_self is for pairs within x"),
        ({"pairs": "other", "groups": torch.ones(2)}, "found 'other'"),
        ({"pairs": "same"}, "groups and pairs go together"),
        ({"groups": torch.ones(2)}, "groups and pairs go together"),
        ({"pairs": "same", "groups": torch.ones(3)}, r"groups must be \[2\], one for each row, found \[3\]"),
        ({"y": X, "pairs": "same", "groups": torch.ones(2)}, "y_groups must be given"),
        ({"y": X, "pairs": "same", "groups": torch.ones(2), "y_groups": torch.ones(1)}, r"y_groups must be \[2\]"),
    ],
)
def test_arguments_that_do_not_fit(arguments, message):
    with pytest.raises(ShapeError, match=message):
        pair_logsumexp(**{"x": X, **arguments})


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak memory of a process as Linux gives it")
def test_memory_grows_with_rows_not_with_pairs():
    # The matrix of pairs would take 1 GB.
    script = """
        import resource, torch
        from repertoire.losses import supcon_loss
        torch.set_num_threads(1)
        labels = torch.arange(16384) % 100
        x = torch.randn(16384, 128, requires_grad=True)
        supcon_loss(torch.randn(64, 128, requires_grad=True), labels[:64] % 8).backward()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        supcon_loss(x, labels).backward()
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], check=True, capture_output=True, text=True, timeout=300
    )
    assert int(run.stdout) * 1024 < 100e6

"""The Triton kernels against the tiles: on a CUDA device, or on the CPU by the interpreter (TRITON_INTERPRET=1)."""

from __future__ import annotations

import os

import pytest
import torch

from repertoire.ops import pair_logsumexp
from repertoire.ops._exponentials import logsumexp, logsumexp_gradients
from repertoire.ops._pairs import prepare

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(
    DEVICE == "cpu" and not INTERPRETED, reason="needs a CUDA device, or TRITON_INTERPRET=1"
)


def rows(seed: int, count: int, width: int, dtype: torch.dtype) -> torch.Tensor:
    x = torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(x, dim=1).to(DEVICE, dtype)


CASES = [
    {"n": 70, "m": None, "width": 5, "exclude_self": True},
    {"n": 200, "m": None, "width": 33, "pairs": "different"},
    {"n": 150, "m": None, "width": 16, "pairs": "same", "exclude_self": True},
    {"n": 140, "m": 70, "width": 20},
    {"n": 65, "m": 131, "width": 160, "pairs": "same"},
    {"n": 1, "m": None, "width": 4, "exclude_self": True},
]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_kernels_are_the_tiles(case, dtype):
    from repertoire.ops import _triton_pairs as kernels

    case = dict(case)
    n, m, width = case.pop("n"), case.pop("m"), case.pop("width")
    x, y = rows(0, n, width, dtype), None if m is None else rows(1, m, width, dtype)
    if "pairs" in case:
        case["groups"] = torch.arange(n, device=DEVICE) % 5 - 1
        case["y_groups"] = None if m is None else torch.arange(m, device=DEVICE) % 4
    plan, inputs = prepare(x, y, "dot", 12.0, None, None, symmetric=True, which=case)
    assert kernels.fits(plan, inputs)
    exact_plan, exact = prepare(
        x.double().cpu(),
        None if y is None else y.double().cpu(),
        "dot",
        12.0,
        None,
        None,
        symmetric=True,
        which={k: v.cpu() if isinstance(v, torch.Tensor) else v for k, v in case.items()},
    )
    found, expected = kernels.logsumexp(plan, inputs), logsumexp(exact_plan, False, exact)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-3
    torch.testing.assert_close(found.double().cpu(), expected, rtol=tolerance, atol=tolerance)
    grad = torch.linspace(-1, 2, n, dtype=torch.float64)
    slopes = kernels.gradients(plan, inputs, found, grad.to(DEVICE), True, y is not None)
    wants = [True, y is not None, False, False, False, False]
    wanted = logsumexp_gradients(exact_plan, False, exact, expected, grad, wants)
    for a, b in zip(slopes, wanted[:2], strict=True):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            assert a.dtype == dtype
            limit = tolerance * max(1.0, float(b.abs().max()))
            torch.testing.assert_close(a.double().cpu(), b, rtol=tolerance, atol=limit)


def test_what_the_kernels_do_not_do_is_left_to_the_tiles():
    from repertoire.ops import _triton_pairs as kernels

    x = rows(0, 8, 4, torch.float32)
    for similarity, bias, which in (
        ("euclidean", None, {}),
        ("dot", torch.zeros(8, device=DEVICE), {}),
        ("dot", None, {"exclude": torch.zeros(8, dtype=torch.int64, device=DEVICE)}),
    ):
        assert not kernels.fits(*prepare(x, None, similarity, 1.0, bias, None, symmetric=True, which=which))
    assert not kernels.fits(*prepare(x.double(), None, "dot", 1.0, None, None, symmetric=True, which={}))


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="needs a CUDA device")
def test_the_function_uses_them_on_a_device():
    x = rows(0, 5000, 64, torch.bfloat16).requires_grad_()
    lse = pair_logsumexp(x, scale=10.0, bound=10.0, exclude_self=True)
    exact = x.detach().double().requires_grad_()
    similarities = (10 * exact @ exact.T).fill_diagonal_(-torch.inf)
    torch.testing.assert_close(lse.double(), similarities.logsumexp(1), rtol=1e-3, atol=1e-3)
    lse.sum().backward()
    similarities.logsumexp(1).sum().backward()
    torch.testing.assert_close(x.grad.double(), exact.grad, rtol=2e-2, atol=2e-2 * float(exact.grad.abs().max()))

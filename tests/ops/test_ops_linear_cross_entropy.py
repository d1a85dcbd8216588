from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from repertoire.errors import ShapeError
from repertoire.ops import linear_cross_entropy

SETTINGS = settings(max_examples=25, deadline=None)


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def reference(
    x, weight, targets, bias=None, similarity="dot", scale=1.0, margin=None, softcap=None, smoothing=0.0, ignore=-100
) -> Tensor:
    """Sample by sample, class by class."""
    losses = []
    for i in range(len(x)):
        if targets[i] == ignore:
            losses.append(x[i].sum() * 0)
            continue
        logits = []
        for c in range(len(weight)):
            s = (x[i] * weight[c]).sum()
            if similarity == "cosine":
                s = s / (x[i].norm() * weight[c].norm())
            if margin is not None and c == targets[i]:
                s = margin(s)
            u = scale * s
            if bias is not None:
                u = u + bias[c]
            logits.append(u if softcap is None else softcap * torch.tanh(u / softcap))
        log_p = torch.stack(logits) - torch.stack(logits).exp().sum().log()
        losses.append(-(1 - smoothing) * log_p[targets[i]] - smoothing * log_p.mean())
    return torch.stack(losses) if losses else x.sum(1)


@SETTINGS
@given(
    n=st.integers(0, 7),
    classes=st.integers(1, 11),
    tile=st.integers(1, 5),
    seed=st.integers(0, 1000),
    biased=st.booleans(),
    similarity=st.sampled_from(["dot", "cosine"]),
    scale=st.sampled_from([1.0, 3.0, "tensor"]),
    margin=st.booleans(),
    softcap=st.sampled_from([None, 2.0]),
    smoothing=st.sampled_from([0.0, 0.2, 1.0]),
    reduction=st.sampled_from(["mean", "sum", "none"]),
)
def test_is_the_dense_form(n, classes, tile, seed, biased, similarity, scale, margin, softcap, smoothing, reduction):
    x, weight = draw(seed, n, 3).requires_grad_(), draw(seed + 1, classes, 3).requires_grad_()
    bias = draw(seed + 2, classes).requires_grad_() if biased else None
    scale = torch.tensor(1.7, dtype=torch.float64, requires_grad=True) if scale == "tensor" else scale
    changed = (lambda s: s - 0.35 * s**2) if margin and not isinstance(scale, Tensor) else None
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, classes, (n,), generator=generator)
    targets[torch.rand(n, generator=generator) < 0.2] = -5
    found = linear_cross_entropy(
        x,
        weight,
        targets,
        bias=bias,
        similarity=similarity,
        scale=scale,
        margin=changed,
        softcap=softcap,
        label_smoothing=smoothing,
        ignore_index=-5,
        reduction=reduction,
        tile=tile,
    )
    losses = reference(x, weight, targets, bias, similarity, scale, changed, softcap, smoothing, -5)
    count = max(1, int((targets != -5).sum()))
    expected = {"none": losses, "sum": losses.sum(), "mean": losses.sum() / count}[reduction]
    torch.testing.assert_close(found, expected)
    leaves = [t for t in (x, weight, bias, scale) if isinstance(t, Tensor)]
    weights = torch.linspace(-1, 2, found.numel(), dtype=found.dtype).view(found.shape)

    def gradients(value: Tensor) -> list[Tensor]:
        if not value.requires_grad:
            return [torch.zeros_like(t) for t in leaves]
        grads = torch.autograd.grad((value * weights).sum(), leaves, allow_unused=True)
        return [torch.zeros_like(t) if g is None else g for t, g in zip(leaves, grads, strict=True)]

    torch.testing.assert_close(gradients(found), gradients(expected))


def test_gradcheck():
    x, weight, bias = (draw(k, *s).requires_grad_() for k, s in enumerate([(4, 3), (7, 3), (7,)]))
    targets = torch.tensor([0, 6, -100, 3])

    def loss(x, weight, bias):
        return linear_cross_entropy(x, weight, targets, bias=bias, similarity="cosine", scale=3.0, tile=2,
                                    margin=lambda s: s - 0.2, softcap=5.0, label_smoothing=0.1)  # fmt: skip

    assert torch.autograd.gradcheck(loss, (x, weight, bias))


def test_a_gradient_of_the_gradient_is_refused():
    x, weight = draw(0, 2, 3).requires_grad_(), draw(1, 4, 3)
    loss = linear_cross_entropy(x, weight, torch.tensor([0, 1]))
    (gradient,) = torch.autograd.grad(loss.square(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_default_tiles_and_large_logits():
    x, weight = draw(0, 700, 8).float().requires_grad_(), (40 * draw(1, 1300, 8)).float().requires_grad_()
    targets = torch.arange(700)
    found, expected = linear_cross_entropy(x, weight, targets), F.cross_entropy(x @ weight.T, targets)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for a, b in zip(torch.autograd.grad(found, (x, weight)), torch.autograd.grad(expected, (x, weight)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_half_precision_is_summed_in_float32(dtype, similarity):
    x, weight = draw(0, 20, 8).to(dtype).requires_grad_(), draw(1, 50, 8).to(dtype).requires_grad_()
    targets = torch.arange(20)
    found = linear_cross_entropy(x, weight, targets, similarity=similarity, scale=4.0, tile=16)
    assert found.dtype == torch.float32
    exact = [t.detach().double().requires_grad_() for t in (x, weight)]
    expected = linear_cross_entropy(*exact, targets, similarity=similarity, scale=4.0)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    found.backward()
    expected.backward()
    for t, e in zip((x, weight), exact, strict=True):
        assert t.grad.dtype == dtype
        torch.testing.assert_close(t.grad.double(), e.grad, rtol=2e-2, atol=2e-3)


def test_only_what_is_wanted_gets_a_gradient():
    x, weight = draw(0, 3, 2), draw(1, 4, 2).requires_grad_()
    linear_cross_entropy(x, weight, torch.tensor([0, 1, 3])).backward()
    assert weight.grad is not None
    x.requires_grad_()
    linear_cross_entropy(x, weight.detach(), torch.tensor([0, 1, 3])).backward()
    assert x.grad is not None


def test_nothing_counts():
    x, weight = draw(0, 2, 3).requires_grad_(), draw(1, 4, 3).requires_grad_()
    loss = linear_cross_entropy(x, weight, torch.tensor([-100, -100]))
    loss.backward()
    assert loss == 0
    assert not x.grad.any()
    assert not weight.grad.any()


X, W, T = torch.zeros(2, 3), torch.zeros(4, 3), torch.tensor([0, 3])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"features": torch.zeros(3)}, r"features must be a floating point \[N, d\], found torch.float32 \[3\]"),
        ({"weight": torch.zeros(4, 2)}, r"weight must be a floating point \[C, 3\], a row a class"),
        ({"targets": torch.zeros(2)}, r"targets must be integers \[2\]"),
        ({"targets": torch.tensor([0, 4])}, r"targets must lie in 0..3 .* found 4 in row 1"),
        ({"targets": torch.tensor([-1, 0])}, "found -1 in row 0"),
        ({"bias": torch.zeros(3)}, r"bias must be \[4\], one a class"),
        ({"similarity": "euclidean"}, "found 'euclidean'"),
        ({"scale": torch.ones(2)}, "scale must be a number"),
        ({"scale": torch.tensor(2.0), "margin": torch.abs}, "scale must be a number where there is a margin"),
        ({"margin": torch.sum}, r"margin must give \[2\], found \[\]"),
        ({"softcap": -1.0}, "softcap must be positive"),
        ({"label_smoothing": 2.0}, r"label_smoothing must lie in \[0, 1\]"),
        ({"reduction": "median"}, "found 'median'"),
    ],
)
def test_arguments_that_do_not_fit(arguments, message):
    with pytest.raises(ShapeError, match=message):
        linear_cross_entropy(**{"features": X, "weight": W, "targets": T, **arguments})


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak memory of a process as Linux gives it")
def test_memory_is_that_of_the_weights_and_their_gradient():
    # Logits and their gradient would take four times as much.
    script = """
        import resource, torch
        from repertoire.ops import linear_cross_entropy
        torch.set_num_threads(1)
        def peak():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        def step(classes):
            weight = torch.zeros(classes, 32).requires_grad_()
            x = torch.randn(128, 32, requires_grad=True)
            linear_cross_entropy(x, weight, torch.arange(128)).backward()
        step(128)
        before = peak()
        step(200_000)
        print(peak() - before)
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], check=True, capture_output=True, text=True, timeout=300
    )
    assert int(run.stdout) < 1.2 * 2 * 200_000 * 32 * 4

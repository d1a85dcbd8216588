"""Eight explainers, each against its own definition, written out slowly in double precision, and against captum."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression, Ridge
from torch import Tensor, nn

from repertoire.explain import (
    CLIME,
    LIME,
    Gradient,
    GradientXInput,
    IntegratedGradients,
    KernelSHAP,
    LocalApproximation,
    Occlusion,
    SmoothGrad,
)
from repertoire.explain.attribution._neighbourhoods import coalitions, kernel_weights, masks, path


def mlp(columns: int = 5, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(columns, 16), nn.Tanh(), nn.Linear(16, 3)).double().eval()


def features(count: int = 3, columns: int = 5, seed: int = 1) -> Tensor:
    return torch.randn(count, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cnn(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, 5, 3, padding=1), nn.Softplus(), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(45, 3)
    ).double()


def images(count: int = 3, height: int = 6, width: int = 5, seed: int = 1) -> Tensor:
    return torch.rand(count, 2, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def score(model: nn.Module, x: Tensor, target: int) -> float:
    with torch.no_grad():
        return float(model(x[None])[0, target])


def gradient(model: nn.Module, x: Tensor, target: int) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(model(x[None])[0, target], x)[0]


def keep(x: Tensor, baseline: float, parts: Tensor, kept: list[int]) -> Tensor:
    """x where a place belongs to a component that is kept, and else the baseline."""
    out = torch.full_like(x, baseline)
    for place in itertools.product(*map(range, parts.shape)):
        if int(parts[place]) in kept:
            out[(..., *place)] = x[(..., *place)]
    return out


def on_places(values: list[float], parts: Tensor) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[parts]


COLUMNS = torch.arange(5)
SQUARES = torch.tensor([[0, 0, 0, 1, 1]] * 3 + [[2, 2, 2, 3, 3]] * 3)
CASES = pytest.mark.parametrize(
    ("model", "x", "parts", "options"),
    [
        (mlp(), features(), COLUMNS, {}),
        (cnn(), images(), SQUARES, {"patch": 3}),
        (cnn(1), images(2), SQUARES, {"segments": SQUARES}),
    ],
    ids=["features", "squares", "segments"],
)


@CASES
@pytest.mark.parametrize("baseline", [0.0, 0.5])
def test_occlusion(model, x, parts, options, baseline):
    found = Occlusion(baseline, normalize=False, **options)(model, x, 1)
    for i, each in enumerate(x):
        falls = [
            score(model, each, 1)
            - score(model, keep(each, baseline, parts, [k for k in range(int(parts.max()) + 1) if k != j]), 1)
            for j in range(int(parts.max()) + 1)
        ]
        torch.testing.assert_close(found[i], on_places(falls, parts))


def shapley(value, count: int) -> list[float]:
    """By all orders in which components may arrive."""
    total = [0.0] * count
    for order in itertools.permutations(range(count)):
        present: list[int] = []
        for j in order:
            before = value(present)
            present = [*present, j]
            total[j] += value(present) - before
    return [t / math.factorial(count) for t in total]


@CASES
def test_kernel_shap_with_all_coalitions_is_shapley(model, x, parts, options):
    found = KernelSHAP(baseline=0.25, normalize=False, **options)(model, x, 2)
    for i, each in enumerate(x):
        known: dict[tuple[int, ...], float] = {}

        def value(present, each=each, known=known):
            key = tuple(sorted(present))
            if key not in known:
                known[key] = score(model, keep(each, 0.25, parts, present), 2)
            return known[key]

        torch.testing.assert_close(found[i], on_places(shapley(value, int(parts.max()) + 1), parts))


@CASES
@pytest.mark.parametrize(
    "given_",
    [
        {},
        {"ridge": 1.0, "sampling": "coin"},
        {"kernel": "euclidean"},
        {"kernel": "euclidean", "width": 1.5, "ridge": 0.3},
        {"width": 0.5},
    ],
    ids=str,
)
def test_lime(model, x, parts, options, given_):
    found = LIME(samples=60, baseline=0.1, seed=3, normalize=False, **options, **given_)(model, x, 0)
    count = int(parts.max()) + 1
    drawn = masks(count, 60, given_.get("sampling", "count"), torch.Generator().manual_seed(3))
    weights = []
    for row in drawn.tolist():
        if given_.get("kernel") == "euclidean":
            distance, width = math.sqrt(sum((1 - z) ** 2 for z in row)), 0.75 * math.sqrt(count)
        else:
            cosine = sum(row) / (math.sqrt(sum(row)) * math.sqrt(count)) if any(row) else 0.0
            distance, width = 1 - cosine, 0.25
        weights.append(math.exp(-(distance**2) / given_.get("width", width) ** 2))
    for i, each in enumerate(x):
        values = [
            score(model, keep(each, 0.1, parts, [j for j in range(count) if row[j]]), 0) for row in drawn.tolist()
        ]
        fit = Ridge(given_["ridge"]) if "ridge" in given_ else LinearRegression()
        fit.fit(drawn.numpy().astype(float), values, sample_weight=weights)
        torch.testing.assert_close(found[i], on_places(fit.coef_.tolist(), parts))


@CASES
def test_c_lime(model, x, parts, options):
    found = CLIME(samples=80, sigma=0.2, seed=5, normalize=False, **options)(model, x, 0)
    count = int(parts.max()) + 1
    noise = torch.randn(80, count, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    for i, each in enumerate(x):
        sigma = 0.2 if each.ndim == 1 else 0.2 * float(each.max() - each.min())
        values = [score(model, each + sigma * row[parts], 0) for row in noise]
        fit = LinearRegression().fit(sigma * noise.numpy(), values)
        torch.testing.assert_close(found[i], on_places(fit.coef_.tolist(), parts))


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 4), st.integers(0, 99), st.sampled_from([0.0, 0.3]))
def test_gradients(count, seed, baseline):
    model, x = cnn(seed), images(count, seed=seed)
    slopes = torch.stack([gradient(model, each, 2) for each in x])
    torch.testing.assert_close(Gradient("sum", normalize=False)(model, x, 2), slopes.sum(1))
    largest = slopes.abs().amax(1)
    torch.testing.assert_close(Gradient()(model, x, 2), largest / largest.amax((1, 2), keepdim=True))
    torch.testing.assert_close(GradientXInput(baseline, normalize=False)(model, x, 2), (slopes * (x - baseline)).sum(1))
    net, rows = mlp(seed=seed), features(count, seed=seed)
    slopes = torch.stack([gradient(net, row, 1) for row in rows])
    torch.testing.assert_close(Gradient(normalize=False)(net, rows, 1), slopes)
    torch.testing.assert_close(GradientXInput(normalize=False)(net, rows, 1), slopes * rows)


@pytest.mark.parametrize("rule", ["gauss-legendre", "right", "midpoint"])
def test_integrated_gradients(rule):
    model, x, steps = cnn(), images(), 7
    if rule == "gauss-legendre":
        nodes, weights = np.polynomial.legendre.leggauss(steps)
        nodes, weights = (nodes + 1) / 2, weights / 2
    else:
        nodes = [(k + (1.0 if rule == "right" else 0.5)) / steps for k in range(steps)]
        weights = [1 / steps] * steps
    found = IntegratedGradients(steps, rule, baseline=0.2, normalize=False)(model, x, 1)
    for i, each in enumerate(x):
        start = torch.full_like(each, 0.2)
        slope = sum(w * gradient(model, start + a * (each - start), 1) for a, w in zip(nodes, weights, strict=True))
        torch.testing.assert_close(found[i], ((each - start) * slope).sum(0))


def test_integrated_gradients_are_complete():
    model, x = mlp(), features(20)
    found = IntegratedGradients(normalize=False)(model, x, 0)
    torch.testing.assert_close(found.sum(1), (model(x) - model(torch.zeros_like(x)))[:, 0].detach())


def test_smooth_grad():
    for model, x in ((cnn(), images()), (mlp(), features())):
        found = SmoothGrad(6, 0.3, channels="sum", seed=2, normalize=False)(model, x, 1)
        generator = torch.Generator().manual_seed(2)
        noise = [torch.randn(x.shape[1:], generator=generator, dtype=torch.float64) for _ in range(6)]
        for i, each in enumerate(x):
            sigma = 0.3 * (float(each.max() - each.min()) if each.ndim == 3 else 1.0)
            mean = sum(gradient(model, each + sigma * row, 1) for row in noise) / 6
            torch.testing.assert_close(found[i], mean.sum(0) if each.ndim == 3 else mean)


def test_noise_and_values_agree_with_noise_and_gradients():
    """Stein's lemma: C-LIME becomes SmoothGrad."""
    model, x = mlp(), features()
    by_values = CLIME(20_000, sigma=1.5, normalize=False)(model, x, 0)
    by_gradients = SmoothGrad(20_000, sigma=1.5, normalize=False, batch_size=4096)(model, x, 0)
    torch.testing.assert_close(by_values, by_gradients, rtol=0, atol=0.01)
    assert (by_gradients - Gradient(normalize=False)(model, x, 0)).abs().max() > 0.03


@settings(max_examples=10, deadline=None)
@given(st.integers(10, 16), st.integers(0, 99))
def test_kernel_shap_by_sampling_meets_the_constraint_and_is_near(columns, seed):
    model, x = mlp(columns, seed), features(2, columns, seed)
    rise = (model(x) - model(torch.zeros_like(x)))[:, 1].detach()
    few = KernelSHAP(40, seed=seed, normalize=False)(model, x, 1)
    torch.testing.assert_close(few.sum(1), rise, rtol=0, atol=1e-12)
    exact = KernelSHAP(2**columns, normalize=False, batch_size=8192)(model, x, 1) if columns < 13 else None
    if exact is not None:
        near = KernelSHAP(1000, seed=seed, normalize=False)(model, x, 1)
        assert (near - exact).norm() < 0.1 * exact.norm()


def test_a_score_that_is_additive_is_explained_exactly_by_any_draw():
    net, x = nn.Linear(20, 2).double(), features(3, 20)
    expected = (net.weight[1] * x).detach()
    for explainer in (
        KernelSHAP(60, normalize=False),
        LIME(60, normalize=False),
        Occlusion(normalize=False),
        IntegratedGradients(1, normalize=False),
        GradientXInput(normalize=False),
    ):
        torch.testing.assert_close(explainer(net, x, 1), expected)
    for explainer in (CLIME(60, normalize=False), SmoothGrad(2, normalize=False), Gradient(normalize=False)):
        torch.testing.assert_close(explainer(net, x, 1), net.weight[1].detach().expand(3, -1))


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 7))
def test_all_coalitions_have_the_weight_of_the_kernel(count):
    kept, weights = coalitions(count, 2**count, torch.Generator())
    assert len({tuple(row) for row in kept.tolist()}) == len(kept) == 2**count - 2
    kernel = [(count - 1) / (math.comb(count, m) * m * (count - m)) for m in kept.sum(1).tolist()]
    torch.testing.assert_close(weights, torch.tensor(kernel, dtype=torch.float64) / sum(kernel))


def test_draws():
    generator = torch.Generator().manual_seed(0)
    kept, weights = coalitions(20, 20_000, generator)
    assert torch.equal(kept[:10_000], ~kept[10_000:])
    assert weights.sum() == pytest.approx(1)
    sizes = torch.bincount(kept.sum(1), minlength=21).double() / len(kept)
    expected = torch.tensor([0.0] + [1 / (m * (20 - m)) for m in range(1, 20)] + [0.0], dtype=torch.float64)
    torch.testing.assert_close(sizes, expected / expected.sum(), rtol=0, atol=0.01)
    by_count = masks(10, 20_000, "count", generator)
    torch.testing.assert_close(
        torch.bincount(by_count.sum(1)) / 20_000, torch.tensor([0.0] + [0.1] * 10), rtol=0, atol=0.01
    )
    torch.testing.assert_close(by_count.double().mean(0), torch.full((10,), 0.55).double(), rtol=0, atol=0.02)
    by_coin = masks(10, 20_000, "coin", generator)
    torch.testing.assert_close(by_coin.double().mean(0), torch.full((10,), 0.5).double(), rtol=0, atol=0.02)
    assert by_coin[0].all()
    assert by_count[0].all()
    assert kernel_weights(torch.tensor([[False, False], [True, True]]), "cosine", 0.5).tolist() == [math.exp(-4), 1]


def test_nodes_of_a_path():
    for steps in (1, 2, 5, 32, 100):
        nodes, weights = path(0.0, steps, "gauss-legendre")
        expected, of = np.polynomial.legendre.leggauss(steps)
        np.testing.assert_allclose(nodes, (expected + 1) / 2, atol=1e-13)
        np.testing.assert_allclose(weights, of / 2, atol=1e-13)
    nodes, weights = path(0.5, 4, "right")
    assert nodes.tolist() == [0.625, 0.75, 0.875, 1.0]
    assert weights.tolist() == [0.25] * 4


def test_agrees_with_captum():
    try:
        from captum import attr
        from captum._utils.models.linear_model import SkLearnLinearRegression
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"captum cannot be imported: {error}")
    model, x = cnn(), images()
    raw = {"normalize": False}

    def same(ours: Tensor, theirs: Tensor, atol: float = 1e-9) -> None:
        torch.testing.assert_close(ours, theirs.detach().double().sum(1), rtol=0, atol=atol)

    same(Gradient("sum", **raw)(model, x, 1), attr.Saliency(model).attribute(x, target=1, abs=False))
    same(GradientXInput(**raw)(model, x, 1), attr.InputXGradient(model).attribute(x, target=1))
    theirs = attr.IntegratedGradients(model).attribute(x, 0.2, target=1, n_steps=9)
    same(IntegratedGradients(9, baseline=0.2, **raw)(model, x, 1), theirs)
    theirs = attr.Occlusion(model).attribute(x, (2, 3, 3), (2, 3, 3), target=1)
    torch.testing.assert_close(Occlusion(patch=3, **raw)(model, x, 1), theirs[:, 0].double(), rtol=0, atol=1e-6)
    one, segments = x[:1], SQUARES
    drawn = masks(4, 40, "count", torch.Generator().manual_seed(0))

    def perturb(original, **given):
        yield from drawn[:, None].double()

    def similarity(original, perturbed, z, **given):
        return kernel_weights(z.bool(), "cosine", None)

    lime = attr.Lime(
        model, interpretable_model=SkLearnLinearRegression(), similarity_func=similarity, perturb_func=perturb
    )
    theirs = lime.attribute(one, target=1, feature_mask=segments[None, None], n_samples=40)
    ours = LIME(40, segments=segments, **raw)(model, one, 1)
    torch.testing.assert_close(ours, theirs[:, 0].double(), rtol=0, atol=1e-4)  # captum fits in single precision
    torch.manual_seed(0)
    theirs = attr.KernelShap(model).attribute(one, target=1, feature_mask=segments[None, None], n_samples=400)
    ours = KernelSHAP(segments=segments, **raw)(model, one, 1)
    torch.testing.assert_close(ours, theirs[:, 0].double(), rtol=0, atol=0.05 * float(ours.abs().max()))
    torch.manual_seed(0)
    net, rows = mlp(), features()
    tunnel = attr.NoiseTunnel(attr.Saliency(net))
    theirs = tunnel.attribute(rows, nt_type="smoothgrad", nt_samples=20_000, stdevs=0.3, target=1, abs=False)
    ours = SmoothGrad(20_000, 0.3, batch_size=4096, **raw)(net, rows, 1)
    torch.testing.assert_close(ours, theirs.detach(), rtol=0, atol=0.01)


EIGHT = [LIME, CLIME, KernelSHAP, Occlusion, Gradient, GradientXInput, SmoothGrad, IntegratedGradients]


@pytest.mark.parametrize("kind", EIGHT)
def test_is_a_setting_of_the_one_solver(kind):
    special = kind(normalize=False)
    names = ("neighbourhood", "loss", "samples", "sigma", "relative", "start", "rule", "kernel", "width", "sampling")
    options = {name: getattr(special, name) for name in (*names, "ridge", "baseline", "channels", "sign", "seed")}
    general = LocalApproximation(**options, normalize=False)
    for model, x in ((mlp(), features()), (cnn(), images())):
        torch.testing.assert_close(general(model, x, 1), special(model, x, 1))

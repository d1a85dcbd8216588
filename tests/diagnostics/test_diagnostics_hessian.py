"""The Hessian as an operator, beside the matrix written out in double precision."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire import registry
from repertoire.data import Batch
from repertoire.diagnostics import (
    Hessian,
    hessian_eigenvalues,
    hessian_trace,
    loss_landscape,
    lpntk,
    spectral_density,
)
from repertoire.errors import ConfigError, DataError, NonFiniteLoss, ShapeError, UnknownName
from repertoire.methods import Step


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.BatchNorm1d(5), nn.Linear(5, 4)).double().eval()


def batches(seed: int = 0, sizes: tuple[int, ...] = (7, 4, 2)) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(n, 3, generator=generator, dtype=torch.float64), torch.randint(0, 4, (n,), generator=generator))
        for n in sizes
    ]


def dense(model: nn.Module, data: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The matrix of second derivatives, from the definition."""
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    parameters = dict(model.named_parameters())
    x, y = torch.cat([a for a, _ in data]), torch.cat([b for _, b in data])

    def loss(vector: Tensor) -> Tensor:
        parts = vector.split([parameters[n].numel() for n in names])
        weights = {n: part.view_as(parameters[n]) for n, part in zip(names, parts, strict=True)}
        return F.cross_entropy(torch.func.functional_call(model, weights, (x,)), y)

    return torch.autograd.functional.hessian(loss, torch.cat([parameters[n].detach().reshape(-1) for n in names]))


class Symmetric:
    """A matrix as an operator."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix, self.dimension, self.like = matrix, len(matrix), matrix

    def __matmul__(self, vectors: Tensor) -> Tensor:
        return self.matrix @ vectors


def symmetric(size: int, seed: int) -> Tensor:
    x = torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x + x.T


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 99), st.lists(st.integers(1, 6), min_size=1, max_size=3))
def test_products_are_those_of_the_matrix(seed, sizes):
    model, data = network(seed), batches(seed, tuple(sizes))
    hessian, matrix = Hessian(model, data), dense(model, data)
    vectors = torch.randn(len(matrix), 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    torch.testing.assert_close(hessian @ vectors, matrix @ vectors, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(hessian @ vectors[:, 0], matrix @ vectors[:, 0], rtol=1e-9, atol=1e-11)


def test_top_eigenvalues_trace_and_density_are_those_of_the_matrix():
    model, data = network(), batches()
    hessian, exact = Hessian(model, data), torch.linalg.eigvalsh(dense(model, data))
    found = hessian_eigenvalues(hessian, k=3, tolerance=1e-10)
    torch.testing.assert_close(found.values, exact.flip(0)[:3], rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(hessian @ found.vectors, found.vectors * found.values, rtol=1e-5, atol=1e-7)
    trace = hessian_trace(hessian, samples=60)
    assert trace.value == pytest.approx(float(exact.sum()), abs=max(4 * trace.error, 1e-9))
    density = spectral_density(hessian, probes=40, steps=6)
    assert density.mean() * len(exact) == pytest.approx(float(exact.sum()), rel=0.2)
    assert float(density.weights.sum()) == pytest.approx(1.0)
    at = torch.linspace(-2, 3, 2001, dtype=torch.float64)
    assert float(torch.trapezoid(density.density(at, 0.05), at)) == pytest.approx(1.0, abs=1e-3)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 12), st.integers(0, 99))
def test_lanczos_finds_all_eigenvalues_of_a_small_matrix(size, seed):
    matrix = symmetric(size, seed)
    exact = torch.linalg.eigvalsh(matrix)
    found = hessian_eigenvalues(Symmetric(matrix), k=size, iterations=size, tolerance=0.0)
    torch.testing.assert_close(found.values, exact.flip(0), rtol=1e-9, atol=1e-9)
    density = spectral_density(Symmetric(matrix), probes=1, steps=size, seed=seed)
    torch.testing.assert_close(density.nodes, exact, rtol=1e-8, atol=1e-8)
    assert density.share(high=0.0) + density.share(low=1e-300) == pytest.approx(1.0)


def test_equal_eigenvalues_and_zero():
    found = hessian_eigenvalues(Symmetric(2 * torch.eye(4, dtype=torch.float64)), k=3)
    torch.testing.assert_close(found.values, torch.full((3,), 2.0, dtype=torch.float64))
    assert hessian_eigenvalues(Symmetric(torch.zeros(3, 3, dtype=torch.float64))).values.item() == 0


@pytest.mark.parametrize("method", ["hutchinson", "hutch++"])
def test_the_trace_has_no_bias_and_its_error_is_honest(method):
    matrix = symmetric(40, 1)
    found = [hessian_trace(Symmetric(matrix), 12, method=method, seed=seed) for seed in range(400)]
    values = torch.tensor([f.value for f in found])
    spread = float(values.std()) / math.sqrt(len(values))
    assert abs(float(values.mean()) - float(matrix.trace())) < 4 * spread
    assert sum(f.error**2 for f in found) / len(found) == pytest.approx(float(values.var()), rel=0.3)


def test_hutch_plus_plus_wins_where_few_eigenvalues_are_large():
    values = 0.5 ** torch.arange(60, dtype=torch.float64) * 100
    basis = torch.linalg.qr(symmetric(60, 0))[0]
    operator = Symmetric(basis * values @ basis.T)
    errors = {
        method: sum(abs(hessian_trace(operator, 24, method=method, seed=s).value - 200) for s in range(20))
        for method in ("hutch++", "hutchinson")
    }
    assert errors["hutch++"] < 0.05 * errors["hutchinson"]
    assert hessian_trace(Symmetric(symmetric(3, 0)), 9) == (pytest.approx(float(symmetric(3, 0).trace())), 0.0)


class Owning(nn.Module):
    """A method: a loss of its own, for batches."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([2.0, 3.0]))

    def forward(self, batch: Batch) -> Step:
        return Step((self.weight**3).sum() * batch.images.mean())


def test_a_method_brings_its_own_loss():
    batch = Batch((torch.ones(2, 1, 1, 1),), torch.zeros(2, dtype=torch.int64), torch.arange(2))
    torch.testing.assert_close(Hessian(Owning(), [batch]) @ torch.ones(2), torch.tensor([12.0, 18.0]))
    with pytest.raises(ConfigError, match="is no method"):
        Hessian(Plain(), [batch]) @ torch.ones(2)


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, batch: Batch) -> Tensor:
        return self.weight


def test_the_model_is_left_as_it_was():
    model = network().train()
    model[0].eval()
    model[0].bias.requires_grad_(False)
    model[3].weight.grad = torch.ones_like(model[3].weight)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    hessian = Hessian(model, iter(batches()))
    assert hessian.dimension == sum(p.numel() for p in model.parameters()) - 5
    hessian_eigenvalues(hessian, k=2)
    with pytest.raises(NonFiniteLoss):
        Hessian(model, [(torch.full((2, 3), math.nan, dtype=torch.float64), torch.tensor([0, 1]))]) @ torch.ones(
            hessian.dimension, dtype=torch.float64
        )
    assert [m.training for m in model] == [False, True, True, True]
    assert model[0].weight.grad is None
    assert bool((model[3].weight.grad == 1).all())
    assert not model[0].bias.requires_grad
    assert model[0].weight.requires_grad
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_a_loss_that_is_linear_has_no_curvature():
    model = nn.Linear(2, 1)
    assert not (Hessian(model, [(torch.ones(3, 2), torch.zeros(3))], lambda a, b: a.mean()) @ torch.ones(3)).any()


def test_bad_input():
    model, data = network(), batches()
    with pytest.raises(ConfigError, match="no parameter that needs a gradient"):
        Hessian(nn.ReLU(), data)
    with pytest.raises(ConfigError, match="no parameter that needs a gradient"):
        Hessian(network().requires_grad_(False), data)
    ones = torch.ones(49, dtype=torch.float64)
    for empty in ([], [(torch.ones(0, 3), torch.ones(0))]):
        with pytest.raises(DataError, match="batches is empty"):
            Hessian(model, empty) @ torch.ones(Hessian(model, data).dimension)
    with pytest.raises(ShapeError, match="multiplies"):
        Hessian(model, data) @ ones[:3]
    with pytest.raises(DataError, match="pairs of tensors"):
        Hessian(model, [torch.ones(2, 3)]) @ torch.ones(Hessian(model, data).dimension)
    with pytest.raises(ShapeError, match="2 inputs and 3 targets"):
        Hessian(model, [(torch.ones(2, 3), torch.ones(3))]) @ torch.ones(Hessian(model, data).dimension)
    with pytest.raises(ShapeError, match="a scalar"):
        Hessian(model, data, lambda a, b: a.sum(1)) @ torch.ones(Hessian(model, data).dimension)
    operator = Symmetric(torch.eye(3, dtype=torch.float64))
    for options in ({"k": 0}, {"k": 4}, {"k": 2, "iterations": 1}):
        with pytest.raises(ConfigError):
            hessian_eigenvalues(operator, **options)
    for call in (lambda: hessian_trace(operator, 2), lambda: hessian_trace(operator, 0, method="hutchinson")):
        with pytest.raises(ConfigError, match="samples"):
            call()
    with pytest.raises(UnknownName):
        hessian_trace(operator, method="hutch")
    with pytest.raises(ConfigError):
        spectral_density(operator, probes=0)
    with pytest.raises(ConfigError):
        spectral_density(operator).density(torch.zeros(1), 0.0)
    assert math.isnan(hessian_trace(operator, 1, method="hutchinson").error)


@pytest.mark.parametrize("seed", range(0, 60, 4))
def test_no_eigenvalue_is_passed_over_and_each_is_given_as_often_as_it_occurs(seed):
    """One start hardly sees some eigenvectors (in one of 120 such matrices), and sees none twice."""
    values = torch.randn(37, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    values[:3] = values.max() + 0.1
    found = hessian_eigenvalues(Symmetric(values.diag()), 5, seed=seed)
    expected = values.sort(descending=True).values[:5]
    torch.testing.assert_close(found.values, expected, rtol=0, atol=2e-3 * float(values.abs().max()))
    torch.testing.assert_close(found.vectors.T @ found.vectors, torch.eye(5, dtype=torch.float64), rtol=0, atol=1e-6)


#: All but those of maps, and the one without parameters.
HEADS = [name for name in registry.names("heads") if name not in ("dense", "support-trivial", "simplex")]


def head_of(name: str, rows: int) -> tuple[nn.Module, Tensor, Tensor]:
    """A head, features and labels."""
    factory = registry.get("heads", name).factory
    torch.manual_seed(0)
    head = factory(4, 3, **(factory.example_options() if hasattr(factory, "example_options") else {})).double().eval()
    with torch.no_grad():
        for parameter in head.parameters():
            # What begins at zero has no direction of its own length.
            parameter.copy_(torch.where(parameter.any(), parameter, torch.randn_like(parameter)))
    return head, torch.randn(rows, 4, dtype=torch.float64), torch.arange(rows) % head.num_classes


@pytest.mark.parametrize("name", HEADS)
def test_every_head_is_taken_by_what_computes_many_at_once(name: str):
    head, x, y = head_of(name, 5)
    rows = []
    for i in range(5):
        signs = torch.ones(head.num_classes, dtype=torch.float64).index_fill(0, y[i], -1)
        found = torch.autograd.grad(head(x[i : i + 1])[0] @ signs, list(head.parameters()), allow_unused=True)
        rows.append(torch.cat([g.reshape(-1) for g in found if g is not None]))
    together = torch.stack(rows)
    torch.testing.assert_close(lpntk(head, x, y), together @ together.T, rtol=1e-8, atol=1e-10)
    planes = [loss_landscape(head, [(x, y)], x=3, y=2, **options).loss for options in ({}, {"together": 3})]
    torch.testing.assert_close(planes[1], planes[0])


@pytest.mark.parametrize("rows", [8, 30])
@pytest.mark.parametrize("name", HEADS)
def test_every_head_has_second_derivatives(name: str, rows: int):
    """Those of distances too, whatever the number of rows: `cdist` has first ones only."""
    head, x, y = head_of(name, rows)
    weights = {n: p.detach() for n, p in head.named_parameters()}
    hessian = Hessian(head, [(x, y)])
    direction = torch.randn(hessian.dimension, dtype=torch.float64)
    found = hessian @ direction[:, None]

    def slope(step: float) -> Tensor:
        place = dict(zip(weights, direction.split([w.numel() for w in weights.values()]), strict=True))
        moved = {n: (w + step * place[n].view_as(w)).requires_grad_() for n, w in weights.items()}
        loss = F.cross_entropy(torch.func.functional_call(head, moved, (x,)), y)
        return torch.cat(
            [g.reshape(-1) for g in torch.autograd.grad(loss, list(moved.values()), materialize_grads=True)]
        )

    expected = (slope(1e-5) - slope(-1e-5)) / 2e-5
    torch.testing.assert_close(found[:, 0], expected, rtol=1e-4, atol=1e-6)

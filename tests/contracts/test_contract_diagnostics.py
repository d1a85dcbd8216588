"""What every registered diagnostic must do."""

from __future__ import annotations

import inspect
import math

import numpy
import pytest
import torch
from torch import Tensor

from repertoire import diagnostics, registry
from repertoire.errors import DataError, ShapeError

NAMES = registry.names("diagnostics")


def features(rows: int = 40, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 6, generator=generator), torch.arange(rows) % 4


def values(result: object) -> list[float]:
    """The numbers of a float or a named tuple of floats."""
    numbers = list(result) if isinstance(result, tuple) else [result]
    assert all(isinstance(number, float) for number in numbers)
    return numbers


def test_there_are_diagnostics():
    assert NAMES


@pytest.mark.parametrize("name", NAMES)
def test_is_public_and_documented(name):
    entry = registry.get("diagnostics", name)
    assert getattr(diagnostics, entry.factory.__name__) is entry.factory
    assert entry.factory.__name__ in diagnostics.__all__
    assert entry.summary.endswith(".")
    assert ">>>" in entry.factory.__doc__
    parameters = list(inspect.signature(entry.factory).parameters.values())
    assert [p.name for p in parameters[:2]] == ["features", "labels"]
    assert parameters[1].default is None


@pytest.mark.parametrize("name", NAMES)
def test_gives_finite_numbers_and_leaves_its_input_alone(name):
    x, labels = features()
    before = x.clone()
    assert all(map(math.isfinite, values(registry.get("diagnostics", name).factory(x.requires_grad_(), labels))))
    torch.testing.assert_close(x.detach(), before, rtol=0, atol=0)
    assert x.grad is None


@pytest.mark.parametrize("name", NAMES)
def test_order_and_names_of_the_classes_do_not_matter(name):
    diagnostic = registry.get("diagnostics", name).factory
    x, labels = features()
    expected = pytest.approx(values(diagnostic(x, labels)), rel=1e-4)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    assert values(diagnostic(x[order], labels[order])) == expected
    assert values(diagnostic(x, torch.tensor([-1, 2**40, 7, 0])[labels])) == expected


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_any_floating_point_dtype(name, dtype):
    diagnostic = registry.get("diagnostics", name).factory
    x, labels = features()
    assert values(diagnostic(x.to(dtype), labels)) == pytest.approx(values(diagnostic(x, labels)), rel=2e-2)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rows", [0, 1, 2])
def test_few_rows_give_a_number_or_nan(name, rows):
    x, labels = features(rows)
    values(registry.get("diagnostics", name).factory(x, labels))


@pytest.mark.parametrize("name", NAMES)
def test_identical_and_zero_features(name):
    diagnostic = registry.get("diagnostics", name).factory
    _, labels = features()
    assert all(map(math.isfinite, values(diagnostic(torch.ones(40, 6), labels))))
    assert all(map(math.isfinite, values(diagnostic(torch.zeros(40, 6), labels))))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("x", [torch.ones(8), torch.ones(8, 2, 2), torch.ones(8, 2, dtype=torch.int64)])
def test_features_that_do_not_fit(name, x):
    with pytest.raises(ShapeError):
        registry.get("diagnostics", name).factory(x, torch.arange(8) % 2)


@pytest.mark.parametrize("name", NAMES)
def test_a_constant_feature_fewer_samples_than_dimensions_and_one_class_give_numbers(name):
    diagnostic = registry.get("diagnostics", name).factory
    x, labels = features()
    constant = x.clone()
    constant[:, 2] = 5.0
    assert all(map(math.isfinite, values(diagnostic(constant, labels))))
    wide = torch.randn(8, 30, generator=torch.Generator().manual_seed(0))
    assert all(map(math.isfinite, values(diagnostic(wide, torch.arange(8) % 4))))
    values(diagnostic(x, torch.zeros(40, dtype=torch.int64)))


@pytest.mark.parametrize("name", NAMES)
def test_blocks_and_memory_maps_give_what_the_whole_matrix_gives(name, tmp_path):
    diagnostic = registry.get("diagnostics", name).factory
    x, labels = features()
    expected = pytest.approx(values(diagnostic(x, labels)), rel=1e-9)
    numpy.save(tmp_path / "x.npy", x.numpy())
    assert values(diagnostic(numpy.load(tmp_path / "x.npy", mmap_mode="r"), labels)) == expected
    assert values(diagnostic(list(x.split(7)), labels)) == expected
    assert values(diagnostic(lambda: iter(x.split(11)), labels)) == expected
    with pytest.raises(ShapeError, match="more than one pass"):
        diagnostic(iter(x.split(7)), labels)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "effective-rank"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_rows_that_are_not_finite_are_named(name, bad):
    x, labels = features()
    x[[3, 31], 2] = bad
    with pytest.raises(DataError, match="rows 3, 31"):
        registry.get("diagnostics", name).factory(x, labels)


@pytest.mark.parametrize("name", ["alignment", "fisher-ratio", "neural-collapse"])
@pytest.mark.parametrize("count", [39, 41])
def test_labels_of_another_length(name, count):
    with pytest.raises(ShapeError):
        registry.get("diagnostics", name).factory(features()[0], torch.zeros(count, dtype=torch.int64))

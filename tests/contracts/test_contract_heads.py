"""What every registered head must do."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from repertoire import heads, registry
from repertoire.errors import ConfigError, ShapeError
from repertoire.heads import Head

NAMES = registry.names("heads")
WIDTH, CLASSES, N = 24, 5, 7


def build(name: str) -> Head:
    torch.manual_seed(0)
    return registry.build("heads", name, in_features=WIDTH, num_classes=CLASSES)


def features(rows: int = N, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, WIDTH, generator=generator), torch.arange(rows) % CLASSES


def test_there_are_heads():
    assert NAMES


@pytest.mark.parametrize("name", NAMES)
def test_is_public_and_documented(name):
    entry = registry.get("heads", name)
    assert getattr(heads, entry.factory.__name__) is entry.factory
    assert entry.factory.__name__ in heads.__all__
    assert issubclass(entry.factory, Head)
    assert entry.summary.endswith(".")
    assert ">>>" in entry.factory.__doc__


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rows", [0, 1, N])
def test_gives_logits_with_and_without_targets(name, rows):
    head = build(name)
    z, targets = features(rows)
    for training in (True, False):
        head.train(training)
        for logits in (head(z), head(z, targets)):
            assert logits.shape == (rows, CLASSES)
            assert logits.is_floating_point()
            assert logits.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_targets_make_no_difference_outside_training(name):
    head = build(name).eval()
    z, targets = features()
    torch.testing.assert_close(head(z, targets), head(z), rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_weights_and_logits_of_which_the_first_is_forward(name):
    head = build(name).eval()
    z, targets = features()
    outputs = head.outputs(z, targets)
    for weight, logits in outputs:
        assert isinstance(weight, float)
        assert weight >= 0
        assert logits.shape == (N, CLASSES)
    torch.testing.assert_close(outputs[0][1], head(z, targets))


@pytest.mark.parametrize("name", NAMES)
def test_a_gradient_reaches_the_features_and_every_parameter(name):
    head = build(name).train()
    z, targets = features()
    z.requires_grad_()
    sum(w * torch.nn.functional.cross_entropy(y, targets) for w, y in head.outputs(z, targets)).backward()
    assert z.grad.isfinite().all()
    assert z.grad.any()
    for parameter_name, parameter in head.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_rows_do_not_depend_on_each_other(name):
    head = build(name).eval()
    z, _ = features()
    torch.testing.assert_close(head(z)[2:3], head(z[2:3]))


@pytest.mark.parametrize("name", NAMES)
def test_its_state_is_all_there_is_to_it(name):
    head, other = build(name).eval(), build(name).eval()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(torch.randn_like(parameter))
    other.load_state_dict(head.state_dict())
    z, _ = features()
    torch.testing.assert_close(other(z), head(z), rtol=0, atol=0)
    torch.testing.assert_close(copy.deepcopy(head)(z), head(z), rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_any_floating_point_dtype(name, dtype):
    head = build(name).eval()
    z, _ = features()
    expected = head(z)
    found = head.to(dtype)(z.to(dtype))
    torch.testing.assert_close(found.float(), expected, rtol=5e-2, atol=2e-1)


@pytest.mark.parametrize("name", NAMES)
def test_can_be_exported(name):
    head = build(name).eval()
    z, _ = features()
    exported = torch.export.export(head, (z,)).module()
    torch.testing.assert_close(exported(z), head(z))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [{"in_features": 0, "num_classes": 3}, {"in_features": 3, "num_classes": 0}])
def test_sizes_out_of_range(name, size):
    with pytest.raises(ConfigError, match="must be positive"):
        registry.build("heads", name, **size)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "bad",
    [torch.zeros(N, WIDTH + 1), torch.zeros(N, WIDTH, dtype=torch.int64), torch.zeros(WIDTH)],
    ids=["another width", "integers", "a vector"],
)
def test_features_that_do_not_fit_are_named(name, bad):
    for training in (True, False):
        with pytest.raises(ShapeError, match=rf"features must be a floating point \[N, {WIDTH}\], found {bad.dtype}"):
            build(name).train(training)(bad)

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.errors import ConfigError
from repertoire.losses import LOOK, EnergyConfusion, energy_confusion, supcon_loss

pytestmark = pytest.mark.filterwarnings("ignore::repertoire.errors.RepertoireWarning")
SETTINGS = settings(max_examples=25, deadline=None)


def unit(x):
    return x / x.norm() if x.norm() else x


def reference(x, labels, y=None, y_labels=None):
    """The mean over ordered pairs of classes of the mean over their pairs of samples."""
    if y is None:
        y, y_labels = x, labels
        kept = [i for i in range(len(labels)) if labels.count(labels[i]) > 1]
        others = kept
    else:
        kept = [i for i in range(len(labels)) if labels[i] in y_labels]
        others = range(len(y_labels))
    means = []
    for a in {labels[i] for i in kept}:
        for b in {y_labels[j] for j in others} - {a}:
            distances = [
                float((unit(x[i]) - unit(y[j])).square().sum())
                for i in kept
                for j in others
                if labels[i] == a and y_labels[j] == b
            ]
            means.append(sum(distances) / len(distances))
    return sum(means) / len(means) if means else 0.0


def problem(n, classes, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    x[::7] = 0.0
    return x, torch.randint(0, classes, (n,), generator=generator)


@given(st.integers(0, 16), st.integers(1, 6), st.integers(0, 2**31))
@SETTINGS
def test_agrees_with_the_definition(n, classes, seed):
    x, labels = problem(n, classes, seed)
    found = float(energy_confusion(x, labels))
    assert math.isclose(found, reference(x, labels.tolist()), rel_tol=1e-9, abs_tol=1e-9)


@given(st.integers(0, 10), st.integers(0, 10), st.integers(0, 2**31))
@SETTINGS
def test_agrees_with_the_definition_against_a_reference_set(n, m, seed):
    (x, labels), (y, y_labels) = problem(n, 4, seed), problem(m, 4, seed + 1)
    found = float(energy_confusion(x, labels, reference=y, reference_labels=y_labels))
    assert math.isclose(found, reference(x, labels.tolist(), y, y_labels.tolist()), rel_tol=1e-9, abs_tol=1e-9)


def test_gradient():
    x, labels = torch.randn(8, 4, dtype=torch.float64, requires_grad=True), torch.arange(8) % 3
    assert torch.autograd.gradcheck(lambda a: energy_confusion(a, labels), x)


def test_is_added_to_a_loss_of_ones_choice():
    x, labels = torch.randn(8, 4), torch.arange(8) % 3
    loss = EnergyConfusion("supcon:temperature=0.2", weight=0.3)
    expected = supcon_loss(x, labels, temperature=0.2) + 0.3 * energy_confusion(x, labels)
    torch.testing.assert_close(loss(x, labels), expected)


def test_its_base_keeps_its_memory():
    loss = EnergyConfusion(LOOK(neighbours=2, queue=16))
    loss.prepare(4)
    loss(torch.randn(8, 4), torch.arange(8) % 3)
    loss.after_update()
    assert len(loss.base.queue) == 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": -0.1}, "weight must be 0 or more"),
        ({"base": "nt-xent"}, "base must be a loss on embeddings"),
        ({"base": "proxy-anchor", "num_classes": 3}, "base must compare embeddings with each other"),
        ({"base": "supcom"}, "did you mean 'supcon'"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ConfigError, match=message):
        EnergyConfusion(**options)

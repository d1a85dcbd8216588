from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.errors import ConfigError
from repertoire.losses import Contextual, contextual_loss
from repertoire.losses.embeddings._contextual import _step

pytestmark = pytest.mark.filterwarnings("ignore::repertoire.errors.RepertoireWarning")
SETTINGS = settings(max_examples=25, deadline=None)


def unit(x):
    return [row / row.norm() for row in x]


def neighbourhood(row, rows, k):
    """Indices of the rows that are near: no further, in squared distance, than the k-th nearest and 0.05."""
    distances = [2 - 2 * float(row @ other) for other in rows]
    reach = sorted(distances)[min(k, len(rows)) - 1] + 0.05
    return {j for j, d in enumerate(distances) if max(d, 0.0) <= max(reach, 0.05)}


def overlap(a, b, n):
    near = len(a & b) / len(a)
    far = set(range(n))
    return (near + len((far - a) & (far - b)) / max(1, len(far - a))) / 2


def reference(x, labels, k, weight, gamma, y=None, y_labels=None):
    z = unit(x)
    w = z if y is None else unit(y)
    w_labels = labels if y is None else y_labels
    n, m = len(z), len(w)
    anchors = [i for i in range(n) if any(w_labels[j] == labels[i] for j in range(m) if y is not None or j != i)]
    if not anchors:
        return 0.0
    near = [neighbourhood(row, w, k) for row in w]
    half = [neighbourhood(row, w, max(1, min(k // 2, m))) for row in w]
    tilde = [[overlap(near[t], near[j], m) if j in near[t] else 0.0 for j in range(m)] for t in range(m)]

    def expanded(trusted):
        return [sum(tilde[t][j] for t in trusted) / max(1, len(trusted)) for j in range(m)]

    if y is None:
        hat = [expanded([t for t in half[i] if i in half[t]]) for i in range(n)]
        context = [[(hat[i][j] + hat[j][i]) / 2 for j in range(n)] for i in range(n)]
    else:
        context = [expanded(neighbourhood(row, w, max(1, min(k // 2, m)))) for row in z]
    error, similar, positive, negative = 0.0, [], [], []
    for i in anchors:
        for j in range(m):
            s, same = float(z[i] @ w[j]), labels[i] == w_labels[j]
            similar.append(s)
            if y is None and i == j:
                continue
            error += (context[i][j] - float(same)) ** 2
            if same:
                positive.append(max(0.0, 0.75 - s))
            else:
                negative.append(max(0.0, s - 0.6))
    active = [[v for v in values if v > 0] for values in (positive, negative)]
    contrast = sum(sum(v) / len(v) if v else 0.0 for v in active)
    drift = (sum(similar) / len(similar) - 0.25) ** 2
    return weight * error / (len(anchors) * m) + (1 - weight - gamma) * contrast + gamma * drift


def problem(n, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    return x, torch.randint(0, 3, (n,), generator=generator)


@given(st.integers(0, 12), st.sampled_from([2, 4, 6]), st.integers(0, 2**31))
@SETTINGS
def test_agrees_with_the_formula(n, k, seed):
    x, labels = problem(n, seed)
    found = float(contextual_loss(x, labels, neighbours=k, contextual=0.5, regularisation=0.2))
    assert math.isclose(found, reference(x, labels.tolist(), k, 0.5, 0.2), rel_tol=1e-8, abs_tol=1e-8)


@given(st.integers(1, 8), st.integers(1, 9), st.integers(0, 2**31))
@SETTINGS
def test_agrees_with_the_formula_against_a_reference_set(n, m, seed):
    (x, labels), (y, y_labels) = problem(n, seed), problem(m, seed + 1)
    found = float(contextual_loss(x, labels, reference=y, reference_labels=y_labels))
    expected = reference(x, labels.tolist(), 4, 0.4, 0.1, y, y_labels.tolist())
    assert math.isclose(found, expected, rel_tol=1e-8, abs_tol=1e-8)


def test_without_steps_the_gradient_is_that_of_the_value():
    x, labels = problem(8, 0)
    assert torch.autograd.gradcheck(lambda a: contextual_loss(a, labels, contextual=0.0), x.requires_grad_())


def test_a_step_has_a_constant_slope():
    x = torch.tensor([-2.0, 0.0, 3.0], requires_grad=True)
    step = _step(x, 10.0)
    assert step.tolist() == [0.0, 1.0, 1.0]
    step.backward(torch.tensor([1.0, 2.0, 3.0]))
    assert x.grad.tolist() == [10.0, 20.0, 30.0]


def test_descends_to_classes_with_neighbourhoods_of_their_own():
    """What the stand-in gradient is for: following it brings the contextual error itself down."""
    torch.manual_seed(0)
    labels = torch.arange(32) % 8
    x = torch.nn.Parameter(torch.randn(32, 16))
    options = {"contextual": 1.0, "regularisation": 0.0}
    first = float(contextual_loss(x.detach(), labels, **options))
    optimizer = torch.optim.Adam([x], lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        contextual_loss(x, labels, **options).backward()
        optimizer.step()
    assert contextual_loss(x, labels, **options) < 0.5 * first


@pytest.mark.parametrize(
    "options", [{"neighbours": 3}, {"neighbours": 0}, {"contextual": -0.1}, {"contextual": 0.8, "regularisation": 0.3}]
)
def test_options_out_of_range(options):
    with pytest.raises(ConfigError):
        Contextual(**options)

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.errors import ConfigError, ShapeError
from repertoire.losses import MeanShiftedContrast, mean_shifted_loss, nt_xent_loss

SETTINGS = settings(max_examples=25, deadline=None)


def reference(views, centre, temperature, angular):
    """The paper, pair by pair: theta of each view, NT-Xent on these, and the mean of 1 - cos to the centre."""
    units = [row / row.norm() for view in views for row in view]
    theta = [(f - centre) / (f - centre).norm() for f in units]
    count = len(views[0])
    losses = []
    for i in range(2 * count):
        other = (i + count) % (2 * count)
        denominator = sum(torch.exp(theta[i] @ theta[k] / temperature) for k in range(2 * count) if k != i)
        losses.append(-torch.log(torch.exp(theta[i] @ theta[other] / temperature) / denominator))
    near = [1 - f @ centre / centre.norm() for f in units]
    return sum(losses) / len(losses) + angular * sum(near) / len(near)


def two(count, width, seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(count, width, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2)]


@SETTINGS
@given(
    n=st.integers(1, 7),
    width=st.integers(2, 5),
    temperature=st.sampled_from([0.1, 0.25, 1.0]),
    angular=st.sampled_from([0.0, 0.5, 4.0]),
    seed=st.integers(0, 999),
)
def test_is_the_paper(n, width, temperature, angular, seed):
    views, centre = two(n, width, seed), 0.5 * two(1, width, seed + 1)[0][0].detach()
    found = MeanShiftedContrast(centre, temperature, angular)(*views)
    expected = reference(views, centre, temperature, angular)
    torch.testing.assert_close(found, expected)
    for view in views:
        torch.testing.assert_close(*(torch.autograd.grad(v, view, retain_graph=True)[0] for v in (found, expected)))


def test_a_centre_of_zero_is_nt_xent():
    views = two(5, 3, 0)
    for centre in (None, torch.zeros(3)):
        found = mean_shifted_loss(*views, centre=centre, temperature=0.3, angular=2.0)
        torch.testing.assert_close(found, nt_xent_loss(*views, temperature=0.3))


def test_features_in_a_cone_are_well_conditioned():
    """The paper's point: of features that lie close together, NT-Xent sees hardly any difference between samples."""
    away = torch.tensor([10.0, 0.0, 0.0])
    first, second = (away + view.detach().float() for view in two(6, 3, 1))
    centre = (first / first.norm(dim=1, keepdim=True)).mean(0)
    same = nt_xent_loss(first, second, temperature=0.25)
    assert abs(float(same) - float(torch.tensor(11.0).log())) < 0.1  # as if all were equally alike
    assert abs(float(mean_shifted_loss(first, second, centre=centre)) - float(torch.tensor(11.0).log())) > 0.3


def test_what_does_not_fit_is_refused():
    views = two(3, 4, 0)
    with pytest.raises(ShapeError, match=r"centre must be \[4\], as wide as the views, found \[3\]"):
        mean_shifted_loss(*views, centre=torch.zeros(3))
    with pytest.raises(ConfigError, match="angular must be 0 or more"):
        MeanShiftedContrast(angular=-1.0)
    with pytest.raises(ConfigError, match="centre must be finite"):
        MeanShiftedContrast([float("nan")])

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.errors import ShapeError
from repertoire.losses import IndividualTemperatures, individual_temperature_loss


class Reference:
    """The algorithm of the paper, sample by sample, with the gradient of the network written out by weights."""

    def __init__(self, samples, tau, least, largest, rho, gamma, step, beta):
        self.tau, self.s, self.u = [tau] * samples, [None] * samples, [0.0] * samples
        self.least, self.largest, self.rho, self.gamma, self.step, self.beta = least, largest, rho, gamma, step, beta

    def __call__(self, views, index):
        z = [[row / row.norm() for row in view] for view in views]
        value, surrogate, count = 0.0, 0.0, len(views) * len(index)
        for i, sample in enumerate(index):
            tau, means, slopes = self.tau[sample], [], []
            for u in range(len(z)):
                negatives = [view[j] for view in z for j in range(len(view)) if j != i]
                cosines = [z[u][i] @ y for y in negatives]
                numbers = [float(c.detach()) for c in cosines]
                positive = sum(z[u][i] @ z[v][i] for v in range(len(z)) if v != u) / (len(z) - 1)
                numbers = [c - float(positive.detach()) for c in numbers]
                g = sum(math.exp(c / tau) for c in numbers) / len(numbers)
                s = g if self.s[sample] is None else (1 - self.gamma) * self.s[sample] + self.gamma * g
                weights = [math.exp(c / tau) / s / len(numbers) for c in numbers]
                surrogate = surrogate + sum(w * (c - positive) for w, c in zip(weights, cosines, strict=True)) / count
                value += tau * (math.log(s) + self.rho) / count
                means.append(s)
                slopes.append(math.log(s) + self.rho - sum(w * c / tau for w, c in zip(weights, numbers, strict=True)))
            self.s[sample] = sum(means) / len(means)
            slope = min(max(sum(slopes) / len(slopes), -3.0), 3.0)
            self.u[sample] = (1 - self.beta) * self.u[sample] + self.beta * slope
            self.tau[sample] = min(max(tau - self.step * self.u[sample], self.least), self.largest)
        return value, surrogate


@settings(max_examples=15, deadline=None)
@given(
    rows=st.integers(2, 5),
    count=st.integers(2, 3),
    rho=st.sampled_from([0.1, 6.0]),
    step=st.sampled_from([0.001, 0.05]),
    seed=st.integers(0, 1000),
)
def test_is_the_paper_step_by_step(rows, count, rho, step, seed):
    generator = torch.Generator().manual_seed(seed)
    loss = IndividualTemperatures(7, 0.3, 0.05, 1.0, spread=rho, decay=0.2, step=step, momentum=0.1).double()
    algorithm = Reference(7, 0.3, 0.05, 1.0, rho, 0.8, step, 0.9)
    for _ in range(3):
        views = [torch.randn(rows, 3, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(count)]
        index = torch.randperm(7, generator=generator)[:rows]
        value, surrogate = algorithm(views, index.tolist())
        mine = loss(*views, index=index)
        assert float(mine.detach()) == pytest.approx(value, rel=1e-5)
        torch.testing.assert_close(
            torch.autograd.grad(mine, views), torch.autograd.grad(surrogate, views), rtol=1e-5, atol=1e-7
        )
        loss.after_update()
        assert loss.temperatures.tolist() == pytest.approx(algorithm.tau, rel=1e-5)
        for mean, expected in zip(loss.log_means.tolist(), algorithm.s, strict=True):
            assert mean == (-math.inf if expected is None else pytest.approx(math.log(expected), rel=1e-5, abs=1e-6))


def test_a_first_batch_is_the_plain_loss_and_its_slope_in_the_temperatures_is_right():
    x, y = (torch.randn(5, 4, dtype=torch.float64).requires_grad_() for _ in range(2))
    tau = torch.tensor([0.1, 0.2, 0.3, 0.5, 1.0], dtype=torch.float64)

    def value(x, y, tau):
        return individual_temperature_loss(x, y, temperatures=tau)[0]

    assert torch.autograd.gradcheck(lambda x, y: value(x, y, tau), (x, y))
    slope = individual_temperature_loss(x, y, temperatures=tau)[1]
    for i in range(5):
        up, down = tau.clone(), tau.clone()
        up[i] += 1e-6
        down[i] -= 1e-6
        numeric = (
            float((value(x, y, up) - value(x, y, down)).detach()) / 2e-6 * 5
        )  # the loss is a mean over five samples
        assert numeric == pytest.approx(float(slope[i]), rel=1e-4)


def test_samples_among_alike_ones_get_a_larger_temperature():
    generator = torch.Generator().manual_seed(0)
    crowd = torch.tensor([1.0, 0.0, 0.0]) + 0.05 * torch.randn(20, 3, generator=generator)
    x = torch.cat([crowd, torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])])
    loss = IndividualTemperatures(22, temperature=0.3, spread=0.05, step=0.05)
    for _ in range(100):
        loss(x, x, index=torch.arange(22))
        loss.after_update()
    assert loss.temperatures[:20].min() > 1.9 * loss.temperatures[20:].max()


def test_resuming_goes_on_exactly_and_evaluation_changes_nothing():
    views = torch.randn(4, 2, 5, 3)
    loss = IndividualTemperatures(5)
    index = torch.arange(5)
    for pair in views[:2]:
        loss(*pair, index=index)
        loss.after_update()
    state = copy.deepcopy(loss.state_dict())
    loss.eval()
    loss(*views[2], index=index)
    loss.after_update()
    assert all(torch.equal(state[name], value) for name, value in loss.state_dict().items())
    other = IndividualTemperatures(5, temperature=0.5)
    other.load_state_dict(state)
    loss.train()
    for pair in views[2:]:
        assert torch.equal(other(*pair, index=index), loss(*pair, index=index))
        other.after_update()
        loss.after_update()
    assert torch.equal(other.temperatures, loss.temperatures)


def test_wrong_arguments():
    loss = IndividualTemperatures(3)
    x = torch.eye(2)
    with pytest.raises(ShapeError, match=r"index must be integers \[2\], one a sample"):
        loss(x, x, index=torch.zeros(3, dtype=torch.int64))
    for index in ([0, 3], [-1, 0]):
        with pytest.raises(ShapeError, match=r"index must be in 0..2, since the loss was made for 3 samples"):
            loss(x, x, index=torch.tensor(index))
    with pytest.raises(ShapeError, match=r"individual temperatures need index, int64 \[2\]"):
        loss(x, x)
    with pytest.raises(ShapeError, match=r"temperatures must be a floating point \[2\]"):
        individual_temperature_loss(x, x, temperatures=torch.ones(3))
    with pytest.raises(ValueError, match="temperature must be between least_temperature and largest_temperature"):
        IndividualTemperatures(3, temperature=2.0)
    with pytest.raises(ValueError, match="samples must be positive"):
        IndividualTemperatures(0)
    with pytest.raises(ValueError, match=r"momentum must lie in \[0, 1\)"):
        IndividualTemperatures(3, momentum=1.0)
    with pytest.raises(ValueError, match=r"decay must lie in \[0, 1\)"):
        IndividualTemperatures(3, decay=1.0)
    with pytest.raises(ValueError, match="spread must be 0 or more"):
        IndividualTemperatures(3, spread=-1.0)

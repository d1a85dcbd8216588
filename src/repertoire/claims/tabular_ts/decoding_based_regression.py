"""The claim of *Decoding-based Regression* (2025)."""

from __future__ import annotations

import torch
from scipy.stats import kendalltau
from sklearn.datasets import make_friedman1
from torch import Tensor, nn

from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import fit_tensors, perceptron
from repertoire.heads import DigitDecoder


class _Digits(nn.Module):
    """A perceptron and the decoder on its features; called with the inputs, it gives the features."""

    def __init__(self, inputs: int, low: float, high: float) -> None:
        super().__init__()
        self.network = perceptron(inputs, 64)
        self.decoder = DigitDecoder(64, length=8, low=low, high=high)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.network(inputs).relu()


@claim(
    "decoding-based-regression",
    statement=(
        "A network that writes a number digit by digit ranks test samples about as well as one trained by least "
        "squares: its rank correlation is no more than 0.05 lower."
    ),
    metric="Kendall's rank correlation on test samples",
    method="eight binary digits, the mean of their distribution",
    baseline="one output, squared error",
    data="Friedman's first regression problem, 10 features, noise of deviation 1",
    threshold=-0.05,
)
def decoding(budget: Budget, seed: int) -> Measured:
    """Song and Bahri, *Decoding-based Regression* (2025), whose first claim is to lose nothing.

    `extra` has the average log density of test samples, that of the pointwise network with the deviation of its
    residuals on training samples.
    """
    count = budget.pick(smoke=200, small=1000, full=10_000)
    unseen = budget.pick(smoke=50, small=500, full=5000)
    rows, numbers = make_friedman1(count + unseen, noise=1.0, random_state=seed)
    inputs, targets = torch.from_numpy(rows).float(), torch.from_numpy(numbers).float()
    inputs = (inputs - 0.5) * 12**0.5  # uniform in [0, 1], standardised
    seen, targets_seen, held_out, targets_out = inputs[:count], targets[:count], inputs[count:], targets[count:]
    low, high = float(targets_seen.min()), float(targets_seen.max())
    epochs = budget.pick(smoke=1, small=60, full=100)

    torch.manual_seed(seed)
    writer = _Digits(inputs.shape[1], low, high)
    fit_tensors(writer, seen, targets_seen, writer.decoder.loss, epochs=epochs)
    torch.manual_seed(seed)
    pointwise = perceptron(inputs.shape[1], 1)
    mean, deviation = targets_seen.mean(), targets_seen.std()
    scaled = (targets_seen - mean) / deviation
    fit_tensors(pointwise, seen, scaled, lambda found, y: (found[:, 0] - y).square().mean(), epochs=epochs)

    with torch.no_grad():
        written = writer.decoder.mean(writer(held_out))
        density = writer.decoder.log_density(writer(held_out), targets_out).mean()
        guessed, fitted = (pointwise(x)[:, 0] * deviation + mean for x in (held_out, seen))
        normal = torch.distributions.Normal(guessed, (fitted - targets_seen).square().mean().sqrt())
    extra = {
        "digits: log density": float(density),
        "squared error: log density": float(normal.log_prob(targets_out).mean()),
        "digits: mean squared error": float((written - targets_out).square().mean()),
        "squared error: mean squared error": float((guessed - targets_out).square().mean()),
    }
    ours, plain = (float(kendalltau(found.numpy(), targets_out.numpy()).statistic) for found in (written, guessed))
    return Measured(ours, plain, extra)

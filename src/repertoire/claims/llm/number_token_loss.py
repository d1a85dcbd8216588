"""The claim of *Regress, Don't Guess -- A Regression-like Loss on Number Tokens for Language Models* (2024)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from repertoire import losses
from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import fit_tensors, perceptron, pixels
from repertoire.data import ImageSet, load

WORDS = 6


def _products(images: ImageSet, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Pairs of digits side by side, and their product."""
    rows, labels = pixels(images)
    left, right = torch.randint(len(rows), (2, count), generator=torch.Generator().manual_seed(seed))
    return torch.cat([rows[left], rows[right]], 1), labels[left] * labels[right]


@claim(
    "number-token-loss",
    statement=(
        "A network that writes a number token by token is closer to the right one when the number-token loss is added "
        "to cross-entropy."
    ),
    metric="mean absolute error of the number that is read from the most likely tokens",
    method="cross-entropy and number-token loss",
    baseline="cross-entropy",
    data="products of two digits, written as two tokens of sixteen",
    threshold=0.0,
    higher_is_better=False,
)
def number_token(budget: Budget, seed: int) -> Measured:
    """Zausinger et al., *Regress, Don't Guess* (2025): the Wasserstein form, 0.3 of it. `extra` has exact matches."""
    splits = load("digits", seed=seed)
    inputs, numbers = _products(splits.train, budget.pick(smoke=200, small=1500, full=30_000), seed)
    test_inputs, test_numbers = _products(splits.test, 1000, seed + 1)
    targets = torch.stack([numbers // 10, numbers % 10], 1)
    vocabulary = 10 + WORDS
    values = torch.cat([torch.arange(10.0), torch.full((WORDS,), torch.nan)])

    def read(loss: losses.LogitsLoss) -> Tensor:
        torch.manual_seed(seed)
        network: nn.Module = perceptron(inputs.shape[1], 2 * vocabulary)

        def tokens(outputs: Tensor, wanted: Tensor) -> Tensor:
            return loss(outputs.reshape(-1, vocabulary), wanted.reshape(-1))

        fit_tensors(network, inputs, targets, tokens, epochs=budget.pick(smoke=1, small=40, full=60))
        with torch.no_grad():
            written = network(test_inputs).reshape(-1, 2, vocabulary)[..., :10].argmax(2)
        return 10 * written[:, 0] + written[:, 1]

    ours, plain = read(losses.NumberToken(values)), read(losses.CrossEntropy())
    exact = {
        "number-token loss: exact": float((ours == test_numbers).float().mean()),
        "cross-entropy: exact": float((plain == test_numbers).float().mean()),
    }
    error, baseline = (float((found - test_numbers).abs().float().mean()) for found in (ours, plain))
    return Measured(error, baseline, exact)

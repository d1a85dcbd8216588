"""The claim of *Regress, Don't Guess -- A Regression-like Loss on Number Tokens for Language Models* (2024)."""

from __future__ import annotations

import torch
from torch import Tensor

from repertoire import losses
from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.frozen import epochs_for, patches, predictor

WORDS = 6


def _hundredths(numbers: Tensor) -> Tensor:
    """Whole numbers from 0 to 99, for three deviations to either side of the mean."""
    return ((numbers + 3) / 6 * 99).round().clamp(0, 99).long()


@claim(
    "number-token-loss",
    statement=(
        "A network that writes a number token by token is closer to the right one when the number-token loss is added "
        "to cross-entropy."
    ),
    metric="mean absolute error of the number, 0 to 99, that is read from the most likely tokens",
    method="cross-entropy and number-token loss",
    baseline="cross-entropy",
    data="Landsat, 6,435 patches: the middle pixel from those round it, written as two tokens of sixteen",
    bed="landsat",
    threshold=0.1,
    higher_is_better=False,
    learned=3.0,
    draws=2,
)
def number_token(budget: Budget, seed: int) -> Measured:
    """Zausinger et al., *Regress, Don't Guess* (2025): the Wasserstein form, 0.3 of it. `extra` has exact matches. The
    trivial answer is the median of the training numbers."""
    rows = patches(budget, seed)
    numbers, truth = _hundredths(rows.y), _hundredths(rows.test_y)
    written = rows._replace(y=torch.stack([numbers // 10, numbers % 10], 1))
    vocabulary = 10 + WORDS
    values = torch.cat([torch.arange(10.0), torch.full((WORDS,), torch.nan)]).to(rows.x.device)

    def read(loss: losses.LogitsLoss, rate: float) -> Tensor:
        def tokens(outputs: Tensor, wanted: Tensor) -> Tensor:
            return loss(outputs.reshape(-1, vocabulary), wanted.reshape(-1))

        network = predictor(written, tokens, 2 * vocabulary, seed, epochs_for(budget, len(rows.x)), rate)
        with torch.no_grad():
            found = network(rows.test_x).reshape(-1, 2, vocabulary)[..., :10].argmax(2)
        return 10 * found[:, 0] + found[:, 1]

    ours, plain = read(losses.NumberToken(values), 1e-2), read(losses.CrossEntropy(), 1e-2)
    exact = {
        "number-token loss: exact": float((ours == truth).float().mean()),
        "cross-entropy: exact": float((plain == truth).float().mean()),
    }
    error, baseline, trivial = (
        float((found - truth).abs().float().mean()) for found in (ours, plain, numbers.median())
    )
    return Measured(error, baseline, exact, trivial=trivial)

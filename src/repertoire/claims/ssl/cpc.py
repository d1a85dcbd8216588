"""The claim of *Representation Learning with Contrastive Predictive Coding* (2018).

No option was tuned for a claim: momenta are 0.99 and queues a fraction of the data, as the methods' documentation says
for short runs, and everything else is the default.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import perceptron, pixels, probe
from repertoire.data import load
from repertoire.losses import cpc_loss

LENGTH = 8


AHEAD = 3


WIDTH = 32


def _noisy(rows: Tensor, generator: torch.Generator) -> Tensor:
    """What is seen of images `[..., 64]`: each is scaled, and has noise of its own."""
    gain = 0.5 + torch.rand(*rows.shape[:-1], 1, generator=generator)
    return gain * rows + 0.3 * torch.randn(rows.shape, generator=generator)


class _Predictor(nn.Module):
    """Encoder, memory of the past, and linear predictions of the next steps, of `width` numbers each."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.encoder = perceptron(64, WIDTH)
        self.past = nn.GRU(WIDTH, 64, batch_first=True)
        self.ahead = nn.Linear(64, AHEAD * width, bias=False)

    def forward(self, steps: Tensor) -> tuple[Tensor, Tensor]:
        """Latents `[N, T, 32]` of what was seen `[N, T, 64]`, and predictions `[3, N, T, width]`."""
        latents = self.encoder(steps)
        return latents, self.ahead(self.past(latents)[0]).unflatten(2, (AHEAD, -1)).permute(2, 0, 1, 3)


def _pixel_error(steps: Tensor, predictions: Tensor) -> Tensor:
    """Mean squared error of predicted pixels."""
    errors = [
        (predictions[k, :, : LENGTH - 1 - k] - steps[:, 1 + k :]).square().mean() for k in range(len(predictions))
    ]
    return torch.stack(errors).mean()


def _fitted(contrastive: bool, rows: Tensor, labels: Tensor, *, steps: int, seed: int) -> nn.Module:
    """An encoder after it was trained on sequences that show digits of one class."""
    torch.manual_seed(seed)
    network = _Predictor(WIDTH if contrastive else 64)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(seed)
    order, counts = labels.argsort(), labels.bincount()
    starts = counts.cumsum(0) - counts
    for _ in range(steps):
        kinds = torch.randint(10, (64, 1), generator=generator)
        draws = (torch.rand(64, LENGTH, generator=generator) * counts[kinds]).long()
        shown = _noisy(rows[order[starts[kinds] + draws]], generator)
        latents, predictions = network(shown)
        loss = cpc_loss(latents, predictions) if contrastive else _pixel_error(shown, predictions)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.encoder.eval()


@claim(
    "cpc",
    statement=(
        "From sequences in which the class stays and everything else changes, contrastive predictive coding learns an "
        "encoder whose linear probe is more accurate than that of one learned by predicting the pixels to come, or of "
        "random weights, whichever of the two is better."
    ),
    metric="linear-probe test accuracy",
    method="contrastive predictive coding",
    baseline="predicting pixels or random weights, the better",
    data="sequences of eight noisy digits of one class",
    threshold=0.0,
)
def cpc(budget: Budget, seed: int) -> Measured:
    """van den Oord et al., *Representation Learning with Contrastive Predictive Coding* (2018)."""
    splits = load("digits", seed=seed)
    rows, labels = pixels(splits.train)
    test_rows, test_labels = pixels(splits.test)
    generator = torch.Generator().manual_seed(seed)
    seen, unseen = _noisy(rows, generator), _noisy(test_rows, generator)
    steps = budget.pick(smoke=5, small=400, full=10_000)
    found = {}
    for name, contrastive, count in (("cpc", True, steps), ("pixels to come", False, steps), ("random", True, 0)):
        encoder = _fitted(contrastive, rows, labels, steps=count, seed=seed)
        with torch.no_grad():
            z, test_z = encoder(seen).numpy(), encoder(unseen).numpy()
        found[name] = probe(z, labels.numpy(), test_z, test_labels.numpy())
    ours = found.pop("cpc")
    return Measured(ours, max(found.values()), found)

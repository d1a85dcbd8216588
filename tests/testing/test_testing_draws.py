"""What draws without saying so, and what cannot be exported, is found."""

from __future__ import annotations

import pytest
import torch
from broken import failing
from torch import Tensor
from torch.nn import functional as F

from repertoire.data import Batch
from repertoire.losses import LogitsLoss, Loss
from repertoire.methods import Classifier, Method, Needs, Step
from repertoire.testing import check_loss, check_method


def named(checks: list, *words: str) -> list:
    """The checks whose names hold one of these words; the others are tried by the contract suites."""
    return [check for check in checks if any(word in str(check) for word in words)]


class Drawing(LogitsLoss):
    """Cross-entropy of logits that are a little disturbed."""

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        noise = 1e-3 * torch.randn_like(logits) if self.training else 0.0
        return F.cross_entropy(logits + noise, targets)


class Declared(Drawing):
    """Cross-entropy of logits that are a little disturbed."""

    random = True


class Deciding(LogitsLoss):
    """Cross-entropy, of the half of the logits where they are positive."""

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(logits, targets) * (0.5 if float(logits.detach().sum()) > 0 else 1.0)


def test_losses():
    def of(loss: type[Loss]) -> list:
        return named(check_loss(loss), "draws", "exported")

    assert failing(of, Drawing) == ["what it draws is declared"]
    assert failing(of, Declared) == []
    assert failing(of, Deciding) == ["exported"]
    assert failing(lambda loss: named(check_loss(loss, exported=False), "exported"), Deciding) == []


class Noisy(Method):
    """Supervised training on images that are a little disturbed."""

    needs = Needs(labels="required", step="whole")

    def __init__(self, model: Classifier, loss: Loss) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def step(self, batch: Batch) -> Step:
        images = self.transform(batch).images
        loss = self.loss(self.model(images + 1e-3 * torch.randn_like(images)), batch.targets)
        return Step(loss, {"loss": loss.detach()})


class Whole(Noisy):
    """Supervised training on images that are a little disturbed, in whole batches."""

    needs = Needs(labels="required", step="whole", per_sample=False)


class Early(Noisy):
    """Supervised training on images that are disturbed before a batch is cut."""

    def transform(self, batch: Batch) -> Batch:
        return Batch((batch.images + 1e-3 * torch.randn_like(batch.images),), batch.targets, batch.index)

    def step(self, batch: Batch) -> Step:
        loss = self.loss(self.model(self.transform(batch).images), batch.targets)
        return Step(loss, {"loss": loss.detach()})


@pytest.mark.parametrize(
    ("method", "found"), [(Noisy, ["what it draws goes into no pieces"]), (Whole, []), (Early, [])]
)
def test_methods(method: type[Method], found: list[str]):
    assert failing(lambda kind: named(check_method(kind), "draws"), method) == found

"""The claim of *Sharpness-Aware Minimization for Efficiently Improving Generalization* (2020)."""

from __future__ import annotations

import torch

from repertoire.claims import Budget, Measured, arm, claim
from repertoire.claims._training import accuracy
from repertoire.claims.beds import majority
from repertoire.claims.beds.frozen import photographs, splits_of, trained

NOISE = 0.4
RULE, RATE, PLAIN_RATE = "sam:rho=1", 0.05, 0.003


@arm
def memorised(budget: Budget, seed: int, *, rule: str, rate: float, share: float = 1.0) -> dict[str, float]:
    """A network that can learn wrong labels by heart, two in five of which are wrong, trained by a rule.

    Args:
        share: of the usual number of epochs.
    """
    rows = photographs(budget, seed, 200)
    generator = torch.Generator().manual_seed(seed)
    wrong = torch.rand(len(rows.y), generator=generator) < NOISE
    drawn = torch.randint(int(rows.y.max()) + 1, (len(rows.y),), generator=generator)
    labels = torch.where(wrong, drawn, rows.y.cpu())
    splits = splits_of(rows._replace(y=labels.to(rows.y.device)), "cifar10-lite0")
    epochs = round(share * budget.pick(smoke=2, small=40, full=200))
    method = trained(splits, rule=rule, lr=rate, epochs=epochs, seed=seed, device=budget.device)
    return {
        "training": accuracy(method, splits.train),
        "validation": accuracy(method, splits.val),
        "test": accuracy(method, splits.test),
        "majority": majority(splits.test),
    }


@claim(
    "sam",
    statement=(
        "With two in five training labels drawn at random, sharpness-aware minimisation gives a more accurate "
        "classifier than SGD with the same number of steps."
    ),
    metric="test accuracy",
    method="SAM",
    baseline="SGD, equally many steps",
    data="CIFAR-10, frozen features of a pretrained network, 200 images a class, two in five labels drawn at random",
    bed="cifar10-lite0",
    threshold=0.01,
    learned=0.1,
)
def sam(budget: Budget, seed: int) -> Measured:
    """Foret et al., *Sharpness-Aware Minimization for Efficiently Improving Generalization* (2020): label noise. Each
    arm has what was best of its trials on validation images of two pilot seeds: rates of 0.003, 0.01 and 0.05, and for
    SAM radii of 0.1, 0.5, 1 and 2. A step of SAM costs two of SGD; SGD with twice the steps is in `extra`, and how well
    each has learned the noisy labels."""
    ours = memorised(budget, seed, rule=RULE, rate=RATE)
    plain = memorised(budget, seed, rule="backprop", rate=PLAIN_RATE)
    extra = {
        "SGD, twice the steps": memorised(budget, seed, rule="backprop", rate=PLAIN_RATE, share=2.0)["test"],
        "noisy labels learned: SAM": ours["training"],
        "noisy labels learned: SGD": plain["training"],
    }
    return Measured(ours["test"], plain["test"], extra, trivial=plain["majority"])

"""Claims of papers on methods that train without labels: with a teacher, a memory, or a question.

Digits of 8 pixels, disturbed: shifted round the edge, lit unevenly, scaled, and noisy, so that their pixels alone tell
half of them apart. Views are made by disturbing an image once more, and a small perceptron learns from them with the
method as it is, in a second or two. No option was tuned for a claim: momenta are 0.99, as the methods' documentation
says for short runs, and everything else is the default.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from repertoire import backbones, heads, losses, registry
from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import pixels, probe
from repertoire.data import Batch, load
from repertoire.methods import Classifier, Method, Normalize
from repertoire.train._metrics import Outputs
from repertoire.train._probe import probe_outputs

DATA = "digits, shifted, unevenly lit and noisy: 10 classes, 8 pixels"
LINEAR = "linear-probe test accuracy"
SIDE = 8
WIDTH = 128


class _Images(NamedTuple):
    """Images `[N, 1, 8, 8]` and labels `[N]` to learn from and to test on."""

    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor


def _disturb(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image shifted by up to a pixel round the edge, scaled, lit from somewhere, and with noise."""
    count = len(images)
    steps = torch.randint(-1, 2, (2, count, 1), generator=generator)
    rows, columns = (torch.arange(SIDE) - steps) % SIDE
    moved = images[torch.arange(count)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    gain = 0.5 + torch.rand(count, 1, 1, 1, generator=generator)
    slopes = 0.2 * torch.randn(3, count, 1, 1, 1, generator=generator)
    line = torch.linspace(-1, 1, SIDE)
    noise = 0.1 * torch.randn(images.shape, generator=generator)
    return gain * moved + slopes[0] + slopes[1] * line[:, None] + slopes[2] * line + noise


def _images(budget: Budget, seed: int) -> _Images:
    """Disturbed digits; those for validation are test images here, to have more of them."""
    splits = load("digits", seed=seed)
    most = budget.pick(smoke=256, small=2000, full=2000)
    generator = torch.Generator().manual_seed(seed)
    parts = [pixels(part) for part in (splits.train, splits.val, splits.test)]
    seen = parts[0][0].view(-1, 1, SIDE, SIDE)[:most]
    unseen = torch.cat([parts[1][0], parts[2][0]]).view(-1, 1, SIDE, SIDE)[:most]
    labels = parts[0][1][:most], torch.cat([parts[1][1], parts[2][1]])[:most]
    return _Images(_disturb(seen, generator), labels[0], _disturb(unseen, generator), labels[1])


def _new(spec: str, seed: int, samples: int) -> Method:
    """A method with fresh weights, which are a function of the seed."""
    torch.manual_seed(seed)
    net = backbones.MLP(in_channels=1, image_size=SIDE, hidden=WIDTH)
    model = Classifier(Normalize([0.5], [0.5]), net, heads.Linear(net.out_features, 10))
    known: dict[str, Any] = {"model": model, "samples": samples}
    if spec == "embedding":
        known["loss"] = losses.VICReg()
    return registry.build("methods", spec, **known)


def _pretrained(spec: str, data: _Images, *, epochs: int, seed: int, batch_size: int = 128) -> Method:
    """A method after training without labels."""
    method = _new(spec, seed, len(data.images)).train()
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], lr=2e-3)
    for _ in range(epochs):
        for index in torch.randperm(len(data.images), generator=generator).split(batch_size):
            if len(index) < batch_size:
                continue
            views = tuple(_disturb(data.images[index], generator) for _ in range(method.views))
            optimizer.zero_grad()
            method.step(Batch(views, torch.full_like(index, -1), index)).loss.backward()
            optimizer.step()
            method.after_update()
    return method.eval()


@torch.no_grad()
def _features(method: Method, data: _Images) -> tuple[np.ndarray, np.ndarray]:
    return method.embed(data.images).numpy(), method.embed(data.test_images).numpy()


def _linear(method: Method, data: _Images) -> float:
    seen, unseen = _features(method, data)
    return probe(seen, data.labels.numpy(), unseen, data.test_labels.numpy())


def _neighbours(seen: np.ndarray, unseen: np.ndarray, data: _Images) -> float:
    """Test accuracy of the weighted vote of nearest neighbours."""
    parts = [
        Outputs(np.zeros((len(rows), 10), np.float32), rows.astype(np.float32), labels.numpy())
        for rows, labels in ((seen, data.labels), (unseen, data.test_labels))
    ]
    found, _ = probe_outputs("knn", parts[0], parts[1], 10)
    return float((found.logits.argmax(1) == found.labels).mean())


@claim(
    "instance-discrimination",
    statement=(
        "The weighted vote of nearest neighbours is more accurate by features learned with a memory bank, without "
        "labels, than by pixels or by random weights, whichever of the two is better."
    ),
    metric="test accuracy of the weighted vote of 20 neighbours",
    method="instance discrimination, noise-contrastive estimation",
    baseline="pixels or random weights, the better",
    data=DATA,
    threshold=0.0,
)
def instance_discrimination(budget: Budget, seed: int) -> Measured:
    """Wu et al., *Unsupervised Feature Learning via Non-Parametric Instance Discrimination* (2018)."""
    data = _images(budget, seed)
    epochs = budget.pick(smoke=1, small=20, full=200)
    spec = "instance-discrimination:negatives=512"
    learned = _neighbours(*_features(_pretrained(spec, data, epochs=epochs, seed=seed), data), data)
    exact = _pretrained("instance-discrimination:negatives=none", data, epochs=epochs, seed=seed)
    random = _neighbours(*_features(_new(spec, seed, len(data.images)).eval(), data), data)
    raw = _neighbours(data.images.flatten(1).numpy(), data.test_images.flatten(1).numpy(), data)
    extra = {"pixels": raw, "random weights": random, "whole softmax": _neighbours(*_features(exact, data), data)}
    return Measured(learned, max(raw, random), extra)


@claim(
    "tribyol",
    statement=(
        "With batches of 16, a linear probe of features learned with TriBYOL is more accurate than one of features "
        "learned with BYOL in as many steps."
    ),
    metric=LINEAR,
    method="TriBYOL",
    baseline="BYOL",
    data=DATA,
    threshold=0.0,
)
def tribyol(budget: Budget, seed: int) -> Measured:
    """Li et al., *TriBYOL: Triplet BYOL for Self-Supervised Representation Learning* (2022)."""
    data = _images(budget, seed)
    epochs = budget.pick(smoke=1, small=4, full=100)
    options: dict[str, Any] = {"seed": seed, "batch_size": 16}
    ours = _linear(_pretrained("tribyol:momentum=0.99", data, epochs=epochs, **options), data)
    theirs = _linear(_pretrained("byol:momentum=0.99", data, epochs=epochs, **options), data)
    # Three views for each two of BYOL.
    longer = _linear(_pretrained("byol:momentum=0.99", data, epochs=round(1.5 * epochs), **options), data)
    return Measured(ours, theirs, {"BYOL, as many views": longer})


@claim(
    "moco-hard-filter",
    statement=(
        "A linear probe of features learned by MoCo in both directions against the harder half of its queue is more "
        "accurate than one of features learned by MoCo in as many steps."
    ),
    metric=LINEAR,
    method="both directions, the harder half of the queue",
    baseline="MoCo",
    data=DATA,
    threshold=0.0,
)
def moco_hard_filter(budget: Budget, seed: int) -> Measured:
    """Hoang et al., *Momentum Contrastive Learning with Enhanced Negative Sampling and Hard Negative Filtering*
    (2025)."""
    data = _images(budget, seed)
    options: dict[str, Any] = {"epochs": budget.pick(smoke=1, small=20, full=200), "seed": seed}
    ours, theirs, unfiltered = (
        _linear(_pretrained(f"{name}:queue=512,momentum=0.99{more}", data, **options), data)
        for name, more in (("moco-hard", ""), ("moco", ""), ("moco-hard", ",hard=1"))
    )
    return Measured(ours, theirs, {"both directions, the whole queue": unfiltered})


@claim(
    "relational-reasoning",
    statement=(
        "A linear probe of features learned by telling views of the same image from others is at least three "
        "percentage points more accurate than one of features learned with SimCLR from as many views."
    ),
    metric=LINEAR,
    method="relational reasoning, four views",
    baseline="SimCLR, two views, twice the epochs",
    data=DATA,
    threshold=0.03,
)
def relational_reasoning(budget: Budget, seed: int) -> Measured:
    """Patacchiola and Storkey, *Self-Supervised Relational Reasoning for Representation Learning* (2020)."""
    data = _images(budget, seed)
    epochs = budget.pick(smoke=1, small=15, full=200)
    ours = _linear(_pretrained("relational:views=4", data, epochs=epochs, seed=seed), data)
    theirs = _linear(_pretrained("simclr", data, epochs=2 * epochs, seed=seed), data)
    return Measured(ours, theirs)


@claim(
    "diet",
    statement=(
        "A linear probe of features learned with the number of an image as its class is at most one percentage point "
        "less accurate than one of features learned with SimCLR, BYOL or VICReg from as many views, whichever of them "
        "is best."
    ),
    metric=LINEAR,
    method="the number of an image as its class, one view, twice the epochs",
    baseline="SimCLR, BYOL or VICReg, the best",
    data=DATA,
    threshold=-0.01,
)
def diet(budget: Budget, seed: int) -> Measured:
    """Ibrahim, Klindt and Balestriero, *Occam's Razor for Self Supervised Learning* (2024)."""
    data = _images(budget, seed)
    epochs = budget.pick(smoke=1, small=15, full=200)
    ours = _linear(_pretrained("datum-index", data, epochs=2 * epochs, seed=seed), data)
    others = {
        name: _linear(_pretrained(spec, data, epochs=epochs, seed=seed), data)
        for name, spec in (("SimCLR", "simclr"), ("BYOL", "byol:momentum=0.99"), ("VICReg", "embedding"))
    }
    return Measured(ours, max(others.values()), others)

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
from repertoire.claims import Budget
from repertoire.claims._training import pixels, probe
from repertoire.data import Batch, load
from repertoire.methods import Classifier, Method, Normalize

DATA = "digits, shifted, unevenly lit and noisy: 10 classes, 8 pixels"


LINEAR = "linear-probe test accuracy"


SIDE = 8


WIDTH = 128


class DisturbedImages(NamedTuple):
    """Images `[N, 1, 8, 8]` and labels `[N]` to learn from and to test on."""

    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor


def disturb(images: Tensor, generator: torch.Generator) -> Tensor:
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


def disturbed_images(budget: Budget, seed: int) -> DisturbedImages:
    """Disturbed digits; those for validation are test images here, to have more of them."""
    splits = load("digits", seed=seed)
    most = budget.pick(smoke=256, small=2000, full=2000)
    generator = torch.Generator().manual_seed(seed)
    parts = [pixels(part) for part in (splits.train, splits.val, splits.test)]
    seen = parts[0][0].view(-1, 1, SIDE, SIDE)[:most]
    unseen = torch.cat([parts[1][0], parts[2][0]]).view(-1, 1, SIDE, SIDE)[:most]
    labels = parts[0][1][:most], torch.cat([parts[1][1], parts[2][1]])[:most]
    return DisturbedImages(disturb(seen, generator), labels[0], disturb(unseen, generator), labels[1])


def new_method(spec: str, seed: int, samples: int) -> Method:
    """A method with fresh weights, which are a function of the seed."""
    torch.manual_seed(seed)
    net = backbones.MLP(in_channels=1, image_size=SIDE, hidden=WIDTH)
    model = Classifier(Normalize([0.5], [0.5]), net, heads.Linear(net.out_features, 10))
    known: dict[str, Any] = {"model": model, "samples": samples}
    if spec == "embedding":
        known["loss"] = losses.VICReg()
    return registry.build("methods", spec, **known)


def pretrained(spec: str, data: DisturbedImages, *, epochs: int, seed: int, batch_size: int = 128) -> Method:
    """A method after training without labels."""
    method = new_method(spec, seed, len(data.images)).train()
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], lr=2e-3)
    for _ in range(epochs):
        for index in torch.randperm(len(data.images), generator=generator).split(batch_size):
            if len(index) < batch_size:
                continue
            views = tuple(disturb(data.images[index], generator) for _ in range(method.needs.view_count))
            optimizer.zero_grad()
            method.step(Batch(views, torch.full_like(index, -1), index)).loss.backward()
            optimizer.step()
            method.after_update()
    return method.eval()


@torch.no_grad()
def embedded(method: Method, data: DisturbedImages) -> tuple[np.ndarray, np.ndarray]:
    return method.model.embed(data.images).numpy(), method.model.embed(data.test_images).numpy()


def linear_accuracy(method: Method, data: DisturbedImages) -> float:
    seen, unseen = embedded(method, data)
    return probe(seen, data.labels.numpy(), unseen, data.test_labels.numpy())

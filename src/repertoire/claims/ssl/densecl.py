"""The claim of *Dense Contrastive Learning for Self-Supervised Visual Pre-Training* (2020).

Scenes of several photographs are what the paper means: two crops of one may show different things. Its networks are
fine-tuned to detect and segment; here a linear probe of the places, each the mean of three by three as the first
convolution of a decoder would see it, names what lies there. Momentum and queue are the methods' for short runs, and
DenseCL begins with a quarter of its updates as MoCo does, as the released code begins with a thousand.

The room is small: what either method learned in a pilot, on seed 1000 alone, is hardly more than the threshold, which
is what would be worth a second projector and was set before it. In the mean intersection over union:

| | random weights | DenseCL | MoCo |
| --- | --: | --: | --: |
| 12 epochs, which are taken | 0.137 | 0.156 | 0.153 |
| 8 epochs, DenseCL from the first update on | 0.137 | 0.151 | 0.152 |
| 12 epochs, places by themselves, not averaged | 0.096 | 0.106 | 0.118 |
| 8 epochs, the same, trained on single photographs | 0.096 | 0.108 | 0.117 |

An arm has learned from 0.01 above random weights on. Longer training, which was not tried, would make more room.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn import functional as F

from repertoire import backbones, heads, registry
from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import optimise, resolved
from repertoire.claims.beds.ssl_photographs import SIZE, options_of, photographs
from repertoire.data import ImageSet, Splits
from repertoire.methods import Classifier, Method, Normalize

GRID = 8
"""Places on a side of the map of a scene: four for each photograph."""
BATCH = 32
SHARE = 1.2
"""Epochs, of those that methods of whole photographs have on this source: 12."""


class _Scenes(NamedTuple):
    """Scenes of four photographs `[N, 3, 32, 32]` in [0, 1], and the kind of what lies at each place `[N, 8, 8]`."""

    images: Tensor
    places: Tensor


def _scenes(images: ImageSet, count: int, random: np.random.Generator) -> _Scenes:
    """Mosaics of two by two photographs, drawn with replacement."""
    picks = random.integers(len(images), size=4 * count)
    tiles = torch.from_numpy(images.pixels(picks)).permute(0, 3, 1, 2).float().expand(-1, 3, -1, -1) / 255
    pictures = tiles.unflatten(0, (count, 2, 2)).permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
    kinds = torch.as_tensor(images.labels)[picks].view(count, 2, 2)
    return _Scenes(pictures, kinds.repeat_interleave(GRID // 2, 1).repeat_interleave(GRID // 2, 2))


def _trained_on(scenes: _Scenes, spec: str, budget: Budget, seed: int, *, trained: bool = True) -> Method:
    """A method whose network has a map of 8 x 8 places, after training on scenes or with random weights."""
    torch.manual_seed(seed)
    # Built for half the side, it halves the grid twice.
    net = backbones.ConvNet(image_size=SIZE, width=budget.pick(smoke=4, small=16, full=32), depth=3)
    model = Classifier(Normalize([0.5] * 3, [0.25] * 3), net, heads.Linear(net.out_features, 2))
    method: Method = registry.build("methods", spec, model=model)
    if not trained:
        return method.to(budget.device).eval()
    pictures = (255 * scenes.images).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    numbers = np.arange(len(pictures))
    names = [str(number) for number in numbers]
    # Nothing is learned from the labels but a read-out beside the network, of which no use is made.
    images = ImageSet(pictures, numbers % 2, names, ("0", "1"), numbers.astype(np.uint64))
    splits = Splits(images, images, images, source="scenes")
    fields = options_of(budget, seed, SHARE) | {"method": spec, "backbone": "convnet:width=16", "batch_size": BATCH}
    return optimise(method, splits, resolved(splits, **fields))


@torch.no_grad()
def _rows(method: Method, images: Tensor, device: str) -> Tensor:
    """Features of all places, each the mean of three by three, `[N, 8, 8, d]`."""
    net = method.model.backbone
    maps = [net.grid(net.forward_map(method.model.normalize(part.to(device)))) for part in images.split(100)]
    around = F.avg_pool2d(torch.cat(maps).cpu(), 3, stride=1, padding=1, count_include_pad=False)
    return around.permute(0, 2, 3, 1)


def _overlap(method: Method, seen: _Scenes, unseen: _Scenes, device: str) -> float:
    """Mean intersection over union, over the kinds, of what a linear probe takes each place to be."""
    # Neighbouring places say nearly the same: every second is enough to fit the probe.
    sparse = slice(None), slice(0, None, 2), slice(1, None, 2)
    rows, kinds = _rows(method, seen.images, device)[sparse].flatten(0, 2), seen.places[sparse].flatten()
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=200)).fit(rows.numpy(), kinds.numpy())
    found = torch.as_tensor(probe.predict(_rows(method, unseen.images, device).flatten(0, 2).numpy()))
    return _mean_overlap(found, unseen.places.flatten())


def _mean_overlap(found: Tensor, truth: Tensor) -> float:
    """Of the kinds that there are in the truth."""
    shares = [
        ((found == kind) & (truth == kind)).sum() / ((found == kind) | (truth == kind)).sum() for kind in truth.unique()
    ]
    return float(torch.stack(shares).mean())


@claim(
    "densecl",
    statement=(
        "A linear probe of the places of a feature map, each averaged with those around it, tells better what lies "
        "where in a scene when the map was learned with DenseCL than with MoCo in as many steps, by 0.01."
    ),
    metric="mean intersection over union of a linear probe of places",
    method="DenseCL",
    baseline="MoCo",
    data="scenes of four photographs of CIFAR-10 at 16 pixels, ten kinds",
    tier="real, small",
    threshold=0.01,
    learned=0.01,
    guard="the same read-out of a network of random weights",
)
def densecl(budget: Budget, seed: int) -> Measured:
    """Wang et al., *Dense Contrastive Learning for Self-Supervised Visual Pre-Training* (2020)."""
    splits = photographs(budget, seed)
    count = budget.pick(smoke=64, small=1500, full=20_000)
    seen = _scenes(splits.train, count, np.random.default_rng(seed))
    unseen = _scenes(splits.test, budget.pick(smoke=20, small=500, full=2000), np.random.default_rng(0))
    labelled = _Scenes(*(part[: budget.pick(smoke=30, small=600, full=4000)] for part in seen))
    options, warm_up = "queue=512,momentum=0.99", budget.pick(smoke=1, small=141, full=1000)
    ours, theirs = (
        _overlap(_trained_on(seen, spec, budget, seed), labelled, unseen, budget.device)
        for spec in (f"densecl:{options},warm_up={warm_up}", f"moco:{options}")
    )
    plain = _trained_on(seen, f"moco:{options}", budget, seed, trained=False)
    return Measured(ours, theirs, trivial=_overlap(plain, labelled, unseen, budget.device))

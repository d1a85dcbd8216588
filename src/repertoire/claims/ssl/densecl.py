"""The claim of *Dense Contrastive Learning for Self-Supervised Visual Pre-Training* (2020).

No option was tuned for a claim: momenta are 0.99 and queues a fraction of the data, as the methods' documentation says
for short runs, and everything else is the default.
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
from repertoire.claims.beds.pasted import PASTED, pasted
from repertoire.claims.beds.ssl_photographs import options_of
from repertoire.data import ImageSet, Splits
from repertoire.methods import Classifier, Method, Normalize

TILE = 16


KINDS = 4


class _Scenes(NamedTuple):
    """Scenes of four garments `[N, 3, 32, 32]`, and what lies at each place of an 8 x 8 grid `[N, 8, 8]`: 0 for the
    background, or the number of a kind."""

    images: Tensor
    places: Tensor


def _scenes(images: ImageSet, count: int, generator: torch.Generator) -> _Scenes:
    """Mosaics of two by two images of one garment each, drawn with replacement."""
    everything = slice(None)
    rows = torch.from_numpy(images.pixels(everything)).permute(0, 3, 1, 2).float() / 255
    labels, inside = torch.as_tensor(images.labels), torch.from_numpy(images.object_masks(everything))
    picks = torch.randint(len(rows), (count, 2, 2), generator=generator)
    pictures = rows[picks].permute(0, 3, 1, 4, 2, 5).reshape(count, 3, 2 * TILE, 2 * TILE)
    covered = F.avg_pool2d(inside.float()[:, None], 4)[:, 0] > 0.5
    kinds = torch.where(covered, 1 + labels[:, None, None], 0)[picks]
    return _Scenes(pictures, kinds.permute(0, 1, 3, 2, 4).reshape(count, 8, 8))


def _trained_on_scenes(spec: str, scenes: _Scenes, budget: Budget, seed: int, *, trained: bool = True) -> Method:
    """A method whose network has a map of 8 x 8, after training on scenes or with random weights."""
    torch.manual_seed(seed)
    # Built for half the side, it halves the grid twice.
    net = backbones.ConvNet(image_size=TILE, width=16, depth=3)
    model = Classifier(Normalize([0.5] * 3, [0.25] * 3), net, heads.Linear(net.out_features, 2))
    method: Method = registry.build("methods", spec, model=model)
    if not trained:
        return method.eval()
    pictures = (255 * scenes.images).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    names = [str(number) for number in range(len(pictures))]
    keys = np.arange(len(pictures), dtype=np.uint64)
    images = ImageSet(pictures, np.arange(len(pictures)) % 2, names, ("0", "1"), keys)
    splits = Splits(images, images, images, source="scenes")
    fields = options_of(budget, seed, share=0.8) | {"method": spec, "backbone": "convnet:width=16", "batch_size": 64}
    return optimise(method, splits, resolved(splits, **fields))


@torch.no_grad()
def _overlap(method: Method, seen: _Scenes, unseen: _Scenes) -> float:
    """Mean intersection over union of what a linear probe takes each place to be: a convolution of 1 x 1."""
    net = method.model.backbone
    parts = []
    for scenes in (seen, unseen):
        maps = net.grid(net.forward_map(method.model.normalize(scenes.images)))
        parts.append((maps.permute(0, 2, 3, 1).flatten(0, 2).numpy(), scenes.places.flatten()))
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=200))
    guessed = torch.as_tensor(classifier.fit(parts[0][0], parts[0][1].numpy()).predict(parts[1][0]))
    truth = parts[1][1]
    shares = [
        ((guessed == kind) & (truth == kind)).sum() / ((guessed == kind) | (truth == kind)).sum().clamp_min(1)
        for kind in range(KINDS + 1)
    ]
    return float(torch.stack(shares).mean())


@claim(
    "densecl",
    statement=(
        "A linear probe of the places of a feature map learned with DenseCL tells better what garment lies where than "
        "one of a map learned with MoCo for equally long, by 0.01."
    ),
    metric="mean intersection over union of a linear probe of places",
    method="DenseCL",
    baseline="MoCo",
    data=PASTED + ", four to a scene of 32 pixels, four kinds, with exact masks",
    tier="real, small",
    threshold=0.01,
    learned=0.02,
)
def densecl(budget: Budget, seed: int) -> Measured:
    """Wang et al., *Dense Contrastive Learning for Self-Supervised Visual Pre-Training* (2020)."""
    count = budget.pick(smoke=100, small=2000, full=8000)
    splits = pasted(budget, seed, count, side=TILE, object_side=12, classes=KINDS)
    generator = torch.Generator().manual_seed(seed)
    seen = _scenes(splits.train, budget.pick(smoke=64, small=768, full=20_000), generator)
    unseen = _scenes(splits.test, budget.pick(smoke=20, small=200, full=2000), generator)
    labelled = _Scenes(*(part[: budget.pick(smoke=20, small=200, full=2000)] for part in seen))
    options = "queue=512,momentum=0.99"
    ours, theirs = (
        _overlap(_trained_on_scenes(f"{name}:{options}", seen, budget, seed), labelled, unseen)
        for name in ("densecl", "moco")
    )
    random = _overlap(_trained_on_scenes(f"moco:{options}", seen, budget, seed, trained=False), labelled, unseen)
    return Measured(ours, theirs, trivial=random)

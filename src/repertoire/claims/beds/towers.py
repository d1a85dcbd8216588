"""What claims on losses share that compare two towers, or views of a garment whose relation is a known turn."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.claims import Budget
from repertoire.claims._training import probe
from repertoire.claims.beds.frozen import descend, shuffled
from repertoire.claims.beds.handwriting import SIDE, drawn_rows
from repertoire.losses import ViewsLoss

Features = Callable[[Tensor], Tensor]
"""Views `[N, 196]` to what is read out."""

WIDTH = 128


def new_tower(inputs: int, outputs: int, width: int = WIDTH) -> nn.Sequential:
    """A perceptron with two hidden layers that are normalised over the batch."""
    layers = [nn.Linear(inputs, width), nn.BatchNorm1d(width), nn.ReLU()]
    layers += [nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, outputs))


TURNED = "garments of Fashion-MNIST at 14 pixels, turned by any angle"


def turned(images: Tensor, angles: Tensor, generator: torch.Generator) -> Tensor:
    """Images `[N, 196]` turned about their middle by angles `[N]`, with a little noise."""
    cos, sin, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
    matrices = torch.stack([torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)], 1)
    square = images.view(-1, 1, SIDE, SIDE)
    grid = F.affine_grid(matrices, list(square.shape), align_corners=False)
    found = F.grid_sample(square, grid, align_corners=False).flatten(1)
    return found + 0.05 * torch.randn(found.shape, generator=generator)


class Halves(nn.Module):
    """Two projectors, one for each half of the features."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList(
            [nn.Sequential(nn.Linear(WIDTH // 2, 64), nn.ReLU(), nn.Linear(64, outputs // 2)) for _ in range(2)]
        )

    def forward(self, features: Tensor) -> Tensor:
        """Embeddings of the first half of the features, then of the second."""
        halves = features.chunk(2, 1)
        return torch.cat([part(half) for part, half in zip(self.parts, halves, strict=True)], 1)


def _new_encoder() -> nn.Sequential:
    return nn.Sequential(*list(new_tower(SIDE**2, 1))[:-1])


def turned_halves(budget: Budget, seed: int, loss: ViewsLoss, step: float | None) -> nn.Module:
    """An encoder trained on turned images: adjacent turns along a path if there is a step, else any two."""
    generator = torch.Generator().manual_seed(seed)
    (images, _), _ = drawn_rows(budget, seed, budget.pick(smoke=256, small=1024, full=8192), bed="fashion-mnist")
    torch.manual_seed(seed)
    encoder = _new_encoder()
    projector = Halves(32)
    loss.prepare(32)

    def objective(index: Tensor) -> Tensor:
        first = 2 * math.pi * torch.rand(len(index), generator=generator)
        if step is None:
            angles = [first, 2 * math.pi * torch.rand(len(index), generator=generator)]
        else:
            angles = [first, first + step, first + 2 * step]
        views = [turned(images[index], angle, generator) for angle in angles]
        embeddings = projector(encoder(torch.cat(views))).chunk(len(views))
        turn = angles[-1] - first
        known = {"transformation": torch.stack([turn.cos(), turn.sin()], 1)} if loss.wants else {}
        return loss(*embeddings, **known)

    descend(
        [*encoder.parameters(), *projector.parameters(), *loss.parameters()],
        objective,
        shuffled(len(images), 128),
        epochs=budget.pick(smoke=1, small=40, full=200),
        rate=2e-3,
        after=loss.after_update,
    )
    return encoder.eval()


class _Pairs(NamedTuple):
    """Two views of objects, `[N, 196]` each, and the cosine and sine of the turn between them."""

    first: Tensor
    second: Tensor
    turns: Tensor


def _objects(budget: Budget, seed: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Known objects and new ones with their classes; the new ones are the same for every seed."""
    known, new = budget.pick(smoke=(200, 60), small=(1500, 800), full=(9000, 2000))
    return drawn_rows(budget, seed, known, bed="fashion-mnist", tested=new)


def _pairs(budget: Budget, seed: int) -> tuple[_Pairs, _Pairs]:
    """Four pairs of views of each known object, and of each new one."""
    generator = torch.Generator().manual_seed(seed + 1000)
    found = []
    for images, _ in _objects(budget, seed):
        each = images.repeat(4, 1)
        angles = 2 * math.pi * torch.rand(2, len(each), generator=generator)
        turn = angles[1] - angles[0]
        first, second = (turned(each, angle, generator) for angle in angles)
        found.append(_Pairs(first, second, torch.stack([turn.cos(), turn.sin()], 1)))
    return found[0], found[1]


def turn_told(features: Features, budget: Budget, seed: int) -> float:
    """How well a network with one hidden layer, trained on the features of both views of known objects, tells the turn
    between two views of a new one: R² of its cosine and sine."""
    known, new = _pairs(budget, seed)
    with torch.no_grad():
        x, u = (torch.cat([features(part.first), features(part.second)], 1) for part in (known, new))
    mean, spread = x.mean(0), x.std(0).clamp_min(1e-6)
    x, u = (x - mean) / spread, (u - mean) / spread
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(x.shape[1], 256), nn.ReLU(), nn.Linear(256, 2))
    descend(
        network.parameters(),
        lambda index: F.mse_loss(network(x[index]), known.turns[index]),
        shuffled(len(x), 256),
        epochs=budget.pick(smoke=2, small=20, full=40),
        rate=2e-3,
    )
    with torch.no_grad():
        error = (network(u) - new.turns).square().sum()
    return 1 - float(error / (new.turns - new.turns.mean(0)).square().sum())


def class_told(encoder: Features, budget: Budget, seed: int) -> float:
    """Accuracy of a linear probe of features for the class of turned objects."""
    (x, y), (u, v) = _objects(budget, seed)
    generator = torch.Generator().manual_seed(seed + 1000)
    with torch.no_grad():
        rows = [
            encoder(turned(part, 2 * math.pi * torch.rand(len(part), generator=generator), generator)).numpy()
            for part in (x, u)
        ]
    return probe(rows[0], y.numpy(), rows[1], v.numpy())


def turn_without_training(budget: Budget, seed: int) -> float:
    """How well the pixels of two views tell the turn, or features of random weights: whichever is better."""
    torch.manual_seed(seed)
    return max(turn_told(lambda views: views, budget, seed), turn_told(_new_encoder(), budget, seed))

"""Claims of papers on losses that compare two towers, or views whose relation is known.

Pictures with captions are shapes of a colour in a corner. Objects on a turntable are clouds of seven points, one cloud
for each class, of which every object is a copy with other proportions; what is nearer to the viewer is brighter. How
they are drawn, and for how long networks are trained, was chosen on a seed that is not among those of the claims,
before any of the claims was measured.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.claims import Budget
from repertoire.claims._training import probe
from repertoire.losses import ViewsLoss

WIDTH = 128


def new_tower(inputs: int, outputs: int, width: int = WIDTH) -> nn.Sequential:
    """A perceptron with two hidden layers that are normalised over the batch."""
    layers = [nn.Linear(inputs, width), nn.BatchNorm1d(width), nn.ReLU()]
    layers += [nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, outputs))


CLASSES, POINTS, PIXELS = 8, 7, 10


TURNTABLE = "drawn objects on a turntable: 8 classes, 10 pixels"


def turntable_objects(count: int, seed: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Points `[N, 7, 3]` and classes `[N]` of objects; the clouds of the classes depend on the seed alone."""
    clouds = F.normalize(torch.randn(CLASSES, POINTS, 3, generator=torch.Generator().manual_seed(seed)), dim=2)
    classes = torch.arange(count) % CLASSES
    return clouds[classes] + 0.15 * torch.randn(count, POINTS, 3, generator=generator), classes


def seen_from(points: Tensor, angles: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures `[N, 100]` of objects turned by angles `[N]` about the upright axis."""
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    across, up = points[..., 0] * cos + points[..., 2] * sin, points[..., 1]
    near = points[..., 2] * cos - points[..., 0] * sin
    grid = torch.linspace(-1.3, 1.3, PIXELS)
    rows, columns = (torch.exp(-((grid - place[..., None]) ** 2) / 0.08) for place in (up, across))
    pictures = torch.einsum("np,npr,npc->nrc", 0.6 + 0.4 * near, rows, columns)
    return pictures.flatten(1) + 0.05 * torch.randn(len(points), PIXELS**2, generator=generator)


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


def turned_halves(budget: Budget, seed: int, loss: ViewsLoss, step: float | None) -> nn.Module:
    """An encoder trained on views of objects: adjacent ones along a path if there is a step, else any two."""
    generator = torch.Generator().manual_seed(seed)
    points, _ = turntable_objects(budget.pick(smoke=256, small=1024, full=8192), seed, generator)
    torch.manual_seed(seed)
    encoder = nn.Sequential(*list(new_tower(PIXELS**2, 1))[:-1])
    projector = Halves(32)
    loss.prepare(32)
    parameters = [*encoder.parameters(), *projector.parameters(), *loss.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=2e-3)
    for _ in range(budget.pick(smoke=1, small=40, full=200)):
        for index in torch.randperm(len(points), generator=generator).split(128):
            first = 2 * math.pi * torch.rand(len(index), generator=generator)
            if step is None:
                angles = [first, 2 * math.pi * torch.rand(len(index), generator=generator)]
            else:
                angles = [first, first + step, first + 2 * step]
            views = [seen_from(points[index], angle, generator) for angle in angles]
            embeddings = projector(encoder(torch.cat(views))).chunk(len(views))
            turn = angles[-1] - first
            known = {"transformation": torch.stack([turn.cos(), turn.sin()], 1)} if loss.wants else {}
            optimizer.zero_grad()
            loss(*embeddings, **known).backward()
            optimizer.step()
            loss.after_update()
    return encoder.eval()


def pose_and_class(budget: Budget, seed: int, encoder: nn.Module) -> dict[str, tuple[float, float]]:
    """For all features, and for their second half: how well the five nearest of known objects tell the angle of a new
    one (R² of its cosine and sine), and the accuracy of a linear probe for its class."""
    generator = torch.Generator().manual_seed(seed + 1000)
    known, new = budget.pick(smoke=400, small=1500, full=10_000), budget.pick(smoke=100, small=800, full=2000)
    points, classes = turntable_objects(known + new, seed, generator)
    angles = 2 * math.pi * torch.rand(known + new, generator=generator)
    with torch.no_grad():
        features = encoder(seen_from(points, angles, generator))
    poses = torch.stack([angles.cos(), angles.sin()], 1)
    found = {}
    for name, part in (("all", features), ("second half", features[:, WIDTH // 2 :])):
        seen, held_out = F.normalize(part, dim=1).split([known, new])
        guessed = poses[:known][(held_out @ seen.T).topk(5, 1).indices].mean(1)
        error = (guessed - poses[known:]).square().sum() / (poses[known:] - poses[known:].mean(0)).square().sum()
        rows = part.numpy()
        accuracy = probe(rows[:known], classes[:known].numpy(), rows[known:], classes[known:].numpy())
        found[name] = (1 - float(error), accuracy)
    return found

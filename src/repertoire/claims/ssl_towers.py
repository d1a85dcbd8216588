"""Claims of papers on losses that compare two towers, or views whose relation is known.

Pictures with captions are shapes of a colour in a corner. Objects on a turntable are clouds of seven points, one cloud
for each class, of which every object is a copy with other proportions; what is nearer to the viewer is brighter. How
they are drawn, and for how long networks are trained, was chosen on a seed that is not among those of the claims,
before any of the claims was measured.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire import losses
from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import pixels, probe
from repertoire.data import load
from repertoire.losses import ViewsLoss

WIDTH = 128


def _tower(inputs: int, outputs: int, width: int = WIDTH) -> nn.Sequential:
    """A perceptron with two hidden layers that are normalised over the batch."""
    layers = [nn.Linear(inputs, width), nn.BatchNorm1d(width), nn.ReLU()]
    layers += [nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, outputs))


def _own_found(queries: Tensor, keys: Tensor) -> float:
    """Share of queries whose own key is the nearest by cosine."""
    found = (F.normalize(queries, dim=1) @ F.normalize(keys, dim=1).T).argmax(1)
    return float((found == torch.arange(len(queries))).float().mean())


@claim(
    "siglip",
    statement=(
        "With batches of 16, two towers trained with the sigmoid loss find the right half that belongs to the left "
        "half of a new image more often than two towers trained with the softmax loss of CLIP."
    ),
    metric="share of left halves whose own right half is the nearest of all test images",
    method="sigmoid loss, temperature and bias learned",
    baseline="softmax loss, temperature learned",
    data="halves of digits, with noise: 10 classes, 8 pixels",
    threshold=0.0,
)
def siglip(budget: Budget, seed: int) -> Measured:
    """Zhai et al., *Sigmoid Loss for Language Image Pre-Training* (2023)."""
    splits = load("digits", seed=seed)
    images = pixels(splits.train)[0][: budget.pick(smoke=160, small=2000, full=2000)].view(-1, 8, 8)
    test = torch.cat([pixels(splits.val)[0], pixels(splits.test)[0]]).view(-1, 8, 8)
    scores = []
    for loss in (losses.SigmoidPairwise(), losses.CLIP()):
        torch.manual_seed(seed)
        towers = nn.ModuleList([_tower(32, 32), _tower(32, 32)])
        optimizer = torch.optim.Adam([*towers.parameters(), *loss.parameters()], lr=2e-3)
        for _ in range(budget.pick(smoke=1, small=10, full=100)):
            for index in torch.randperm(len(images)).split(16):
                if len(index) < 16:
                    continue
                noisy = images[index] + 0.2 * torch.randn(16, 8, 8)
                left, right = (tower(half.flatten(1)) for tower, half in zip(towers, noisy.split(4, 2), strict=True))
                optimizer.zero_grad()
                loss(left, right).backward()
                optimizer.step()
        towers.eval()
        with torch.no_grad():
            halves = [tower(half.flatten(1)) for tower, half in zip(towers, test.split(4, 2), strict=True)]
        scores.append(_own_found(*halves))
    return Measured(scores[0], scores[1])


SHAPES, COLOURS, CORNERS = 5, 5, 4
CANVAS = 12
PALETTE = ((1.0, 0.1, 0.1), (0.1, 1.0, 0.1), (0.2, 0.2, 1.0), (1.0, 1.0, 0.1), (1.0, 0.2, 1.0))


class _Pictures(NamedTuple):
    """Pictures `[N, 3 * 12 * 12]`, and what is in them: `[N]` each."""

    images: Tensor
    shapes: Tensor
    colours: Tensor
    corners: Tensor


def _pictures(count: int, generator: torch.Generator) -> _Pictures:
    """Squares, discs, crosses, rings and bars of five colours in four corners."""
    shapes, colours, corners = (
        torch.randint(0, kinds, (count,), generator=generator) for kinds in (SHAPES, COLOURS, CORNERS)
    )
    centre = torch.stack([corners % 2, corners // 2], 1) * 5.0 + 3.0 + 1.2 * torch.rand(count, 2, generator=generator)
    size = 2.0 + 0.8 * torch.rand(count, 1, 1, generator=generator)
    places = torch.arange(CANVAS) + 0.0
    across = (places[None, None, :] - centre[:, 0, None, None]).expand(-1, CANVAS, -1)
    down = (places[None, :, None] - centre[:, 1, None, None]).expand(-1, -1, CANVAS)
    far, near = torch.maximum(across.abs(), down.abs()), torch.minimum(across.abs(), down.abs())
    radius = torch.hypot(across, down)
    drawn = torch.stack(
        [
            far < size - 0.3,
            radius < size,
            (near < 0.7) & (far < size + 0.3),
            (radius < size + 0.3) & (radius > size - 1.0),
            (down.abs() < 0.9) & (across.abs() < size + 0.5),
        ],
        1,
    )[torch.arange(count), shapes]
    light = 0.5 + 0.5 * torch.rand(count, 1, 1, 1, generator=generator)
    images = light * drawn[:, None] * torch.tensor(PALETTE)[colours][:, :, None, None]
    noise = 0.2 * torch.randn(images.shape, generator=generator)
    return _Pictures((images + noise).flatten(1), shapes, colours, corners)


def _captions(pictures: _Pictures, generator: torch.Generator | None = None) -> Tensor:
    """Which words a caption has, `[N, 14]`; each is left out three times in ten if there is a generator."""
    words = torch.cat(
        [
            F.one_hot(part, kinds)
            for part, kinds in (
                (pictures.shapes, SHAPES),
                (pictures.colours, COLOURS),
                (pictures.corners, CORNERS),
            )
        ],
        1,
    ).float()
    if generator is not None:
        said = torch.rand(len(words), 3, generator=generator) > 0.3
        words = words * said.repeat_interleave(torch.tensor([SHAPES, COLOURS, CORNERS]), 1)
    return words


def _prompts() -> _Pictures:
    """Every combination of words, shape by shape; there are no pictures to them."""
    each = torch.cartesian_prod(torch.arange(SHAPES), torch.arange(COLOURS), torch.arange(CORNERS))
    return _Pictures(torch.zeros(len(each), 0), each[:, 0], each[:, 1], each[:, 2])


@claim(
    "clip",
    statement=(
        "Told a shape in words, a model trained on pictures with captions recognises it no more than two percentage "
        "points less often than the same network trained with labels of the same pictures."
    ),
    metric="test accuracy for five shapes",
    method="two towers on pictures and captions, zero-shot",
    baseline="the picture's tower with labels",
    data="drawn shapes, five colours, four corners; captions leave out three words in ten; a fifth of pairs unseen",
    threshold=-0.02,
)
def clip(budget: Budget, seed: int) -> Measured:
    """Radford et al., *Learning Transferable Visual Models From Natural Language Supervision* (2021)."""
    generator = torch.Generator().manual_seed(seed)
    everything = _pictures(budget.pick(smoke=600, small=5000, full=50_000), generator)
    unseen = (everything.shapes + everything.colours) % 5 == 0
    pictures = _Pictures(*(part[~unseen] for part in everything))
    test = _pictures(budget.pick(smoke=200, small=2000, full=10_000), generator)
    words = _captions(pictures, generator)
    epochs = budget.pick(smoke=1, small=10, full=50)
    torch.manual_seed(seed)
    inputs = pictures.images.shape[1]
    image, text, loss = _tower(inputs, 32), _tower(words.shape[1], 32), losses.CLIP()
    labelled, named = _tower(inputs, SHAPES), _tower(inputs, words.shape[1])
    parts = (image, text, loss, labelled, named)
    optimizer = torch.optim.Adam([p for part in parts for p in part.parameters()], lr=2e-3)
    for _ in range(epochs):
        for index in torch.randperm(len(words)).split(128):
            shown = pictures.images[index]
            total = loss(image(shown), text(words[index]))
            total = total + F.cross_entropy(labelled(shown), pictures.shapes[index])
            total = total + F.binary_cross_entropy_with_logits(named(shown), words[index])
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
    for part in parts:
        part.eval()
    with torch.no_grad():
        # The description of a shape is the mean of its captions with all colours and corners, as prompts are averaged.
        prompts = F.normalize(text(_captions(_prompts())), dim=1).view(SHAPES, -1, 32).mean(1)
        answers = {
            "CLIP": F.normalize(image(test.images), dim=1) @ F.normalize(prompts, dim=1).T,
            "labels": labelled(test.images),
            "words of captions": named(test.images)[:, :SHAPES],
        }
    right = {name: (scores.argmax(1) == test.shapes).float() for name, scores in answers.items()}
    new = (test.shapes + test.colours) % 5 == 0
    extra = {f"{name}: unseen colours": float(hits[new].mean()) for name, hits in right.items()}
    extra["words of captions"] = float(right["words of captions"].mean())
    return Measured(float(right["CLIP"].mean()), float(right["labels"].mean()), extra)


CLASSES, POINTS, PIXELS = 8, 7, 10
TURNTABLE = "drawn objects on a turntable: 8 classes, 10 pixels"


def _objects(count: int, seed: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Points `[N, 7, 3]` and classes `[N]` of objects; the clouds of the classes depend on the seed alone."""
    clouds = F.normalize(torch.randn(CLASSES, POINTS, 3, generator=torch.Generator().manual_seed(seed)), dim=2)
    classes = torch.arange(count) % CLASSES
    return clouds[classes] + 0.15 * torch.randn(count, POINTS, 3, generator=generator), classes


def _seen_from(points: Tensor, angles: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures `[N, 100]` of objects turned by angles `[N]` about the upright axis."""
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    across, up = points[..., 0] * cos + points[..., 2] * sin, points[..., 1]
    near = points[..., 2] * cos - points[..., 0] * sin
    grid = torch.linspace(-1.3, 1.3, PIXELS)
    rows, columns = (torch.exp(-((grid - place[..., None]) ** 2) / 0.08) for place in (up, across))
    pictures = torch.einsum("np,npr,npc->nrc", 0.6 + 0.4 * near, rows, columns)
    return pictures.flatten(1) + 0.05 * torch.randn(len(points), PIXELS**2, generator=generator)


class _Halves(nn.Module):
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


def _turned(budget: Budget, seed: int, loss: ViewsLoss, step: float | None) -> nn.Module:
    """An encoder trained on views of objects: adjacent ones along a path if there is a step, else any two."""
    generator = torch.Generator().manual_seed(seed)
    points, _ = _objects(budget.pick(smoke=256, small=1024, full=8192), seed, generator)
    torch.manual_seed(seed)
    encoder = nn.Sequential(*list(_tower(PIXELS**2, 1))[:-1])
    projector = _Halves(32)
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
            views = [_seen_from(points[index], angle, generator) for angle in angles]
            embeddings = projector(encoder(torch.cat(views))).chunk(len(views))
            turn = angles[-1] - first
            known = {"transformation": torch.stack([turn.cos(), turn.sin()], 1)} if loss.wants else {}
            optimizer.zero_grad()
            loss(*embeddings, **known).backward()
            optimizer.step()
    return encoder.eval()


def _pose_and_class(budget: Budget, seed: int, encoder: nn.Module) -> dict[str, tuple[float, float]]:
    """For all features, and for their second half: how well the five nearest of known objects tell the angle of a new
    one (R² of its cosine and sine), and the accuracy of a linear probe for its class."""
    generator = torch.Generator().manual_seed(seed + 1000)
    known, new = budget.pick(smoke=400, small=1500, full=10_000), budget.pick(smoke=100, small=800, full=2000)
    points, classes = _objects(known + new, seed, generator)
    angles = 2 * math.pi * torch.rand(known + new, generator=generator)
    with torch.no_grad():
        features = encoder(_seen_from(points, angles, generator))
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


@claim(
    "trajssl",
    statement=(
        "Features trained with VICReg on three adjacent views of an object tell its angle better if a straight "
        "trajectory is asked for as well."
    ),
    metric="R² of the angle, from the five nearest known objects",
    method="VICReg and trajectory regularisation",
    baseline="VICReg",
    data=TURNTABLE,
    threshold=0.0,
)
def trajssl(budget: Budget, seed: int) -> Measured:
    """Wang et al., *Pose-Aware Self-Supervised Learning with Viewpoint Trajectory Regularization* (2024)."""
    step = math.radians(15)
    straight = _pose_and_class(budget, seed, _turned(budget, seed, losses.Trajectory(weight=5.0), step))["all"]
    plain = _pose_and_class(budget, seed, _turned(budget, seed, losses.VICReg(), step))["all"]
    extra = {"trajectory: class accuracy": straight[1], "VICReg: class accuracy": plain[1]}
    return Measured(straight[0], plain[0], extra)


@claim(
    "sie",
    statement=(
        "The equivariant half of the features of SIE tells the angle of an object with an R² at least 0.05 above that "
        "of all features of VICReg, which was trained on the same pairs of views."
    ),
    metric="R² of the angle, from the five nearest known objects",
    method="SIE, the equivariant half of the features",
    baseline="VICReg, all features",
    data=TURNTABLE,
    threshold=0.05,
)
def sie(budget: Budget, seed: int) -> Measured:
    """Garrido et al., *Self-supervised learning of Split Invariant Equivariant representations* (2023)."""
    split = _pose_and_class(budget, seed, _turned(budget, seed, losses.SIE(parameters=2), None))
    plain = _pose_and_class(budget, seed, _turned(budget, seed, losses.VICReg(), None))["all"]
    extra = {"SIE, all features": split["all"][0], "SIE: class accuracy": split["all"][1]}
    return Measured(split["second half"][0], plain[0], {**extra, "VICReg: class accuracy": plain[1]})

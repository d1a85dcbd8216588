"""The claim of *Learning Transferable Visual Models From Natural Language Supervision* (2021)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire import losses
from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.towers import new_tower

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
    image, text, loss = new_tower(inputs, 32), new_tower(words.shape[1], 32), losses.CLIP()
    labelled, named = new_tower(inputs, SHAPES), new_tower(inputs, words.shape[1])
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

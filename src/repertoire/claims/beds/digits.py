"""Digits of eight pixels as rows, scenes made of them, and perceptrons that several claims look at."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.claims._training import fit_tensors, perceptron, pixels
from repertoire.data import ImageSet, load


def digit_rows(seed: int, device: str) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Training and test digits as rows, with their labels."""
    splits = load("digits", seed=seed)
    seen, unseen = pixels(splits.train), pixels(splits.test)
    return (seen[0].to(device), seen[1].to(device)), (unseen[0].to(device), unseen[1].to(device))


def fitted_perceptron(seed: int, x: Tensor, y: Tensor, width: int, epochs: int, outputs: int = 10) -> nn.Module:
    """A perceptron trained with cross-entropy from weights that are a function of the seed."""
    torch.manual_seed(seed)
    return fit_tensors(perceptron(x.shape[1], outputs, width).to(x.device), x, y, F.cross_entropy, epochs=epochs)


@torch.no_grad()
def share_right(network: nn.Module, x: Tensor, y: Tensor) -> float:
    return float((network(x).argmax(1) == y).float().mean())


@torch.no_grad()
def hidden_features(network: nn.Module, x: Tensor) -> Tensor:
    """The features before the last layer of a chain."""
    assert isinstance(network, nn.Sequential)
    return network[:-1](x)


def several_digits(images: ImageSet, count: int, seed: int, most: int = 4) -> tuple[Tensor, Tensor]:
    """Scenes of one to `most` digits of different classes, overlaid: float `[count, pixels]`, and labels `[count, 10]`.

    `most` is the number of quarters of a scene; each holds one digit or none.
    """
    rows, labels = pixels(images)
    generator = torch.Generator().manual_seed(seed)
    present = torch.zeros(count, 10)
    scenes = torch.zeros(count, most, rows.shape[1])
    shown = torch.randint(1, most + 1, (count,), generator=generator)
    for scene in range(count):
        classes = torch.randperm(10, generator=generator)[: int(shown[scene])]
        places = torch.randperm(most, generator=generator)[: len(classes)]
        for place, label in zip(places.tolist(), classes.tolist(), strict=True):
            members = (labels == label).nonzero().squeeze(1)
            pick = int(torch.randint(len(members), (), generator=generator))
            scenes[scene, place] = rows[members[pick]]
        present[scene, classes] = 1.0
    return scenes.flatten(1), present


def rotated_digits(images: ImageSet) -> tuple[Tensor, Tensor, Tensor]:
    """Every digit turned by 0, 90, 180 and 270 degrees: rows float `[4N, pixels]`, the digit and the turn of each.

    The 40 pairs of digit and turn are classes that are far harder to tell apart than digits.
    """
    rows, labels = pixels(images)
    square = rows.view(-1, *images.size)
    turned = torch.cat([torch.rot90(square, turn, (1, 2)).flatten(1) for turn in range(4)])
    return turned, labels.repeat(4), torch.arange(4).repeat_interleave(len(labels))


def two_digits(images: ImageSet, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Pairs of digits side by side, which make a number below 100, the class."""
    rows, labels = pixels(images)
    generator = torch.Generator().manual_seed(seed)
    left, right = torch.randint(len(rows), (2, count), generator=generator)
    return torch.cat([rows[left], rows[right]], 1), 10 * labels[left] + labels[right]


def top_k_accuracy(logits: Tensor, targets: Tensor, k: int) -> float:
    return float((logits.topk(k, 1).indices == targets[:, None]).any(1).float().mean())

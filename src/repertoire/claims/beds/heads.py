"""Many small heads on features of drawn characters, each trained on a few characters of its own.

A quarter of the characters, of which nothing is learned, is for the test. Of the twenty drawings of each character, the
first ten are trained on, the next five are what a user has labelled, and the last five are tested on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire.claims import Budget
from repertoire.claims.beds.frozen import drawings

__all__ = ["TITLE", "drawn_characters", "gathered", "mean", "outputs_of", "subsets", "trained_heads"]

TITLE = "Omniglot, unseen characters of eight alphabets, frozen features of a pretrained network"

DRAWINGS = {"trained": slice(0, 10), "labelled": slice(10, 15), "tested": slice(15, 20)}
"""Which drawings of a character are for what."""


class Drawn(NamedTuple):
    """Features `[characters, 20, d]` of characters to learn from, of others, and of those kept for the test."""

    known: Tensor
    others: Tensor
    unseen: Tensor


def drawn_characters(budget: Budget, seed: int, width: int) -> Drawn:
    """The characters, of which the seed draws those that are known; the first principal components of the features."""
    rows = drawings(budget, seed, "characters")
    pairs = ((rows.x, rows.y), (rows.val_x, rows.val_y), (rows.test_x, rows.test_y))
    return Drawn(*(_by_character(x[:, :width], y) for x, y in pairs))


def _by_character(x: Tensor, y: Tensor) -> Tensor:
    """Twenty rows of each class; the rows of one that has fewer come again."""
    found = []
    for c in y.unique().tolist():
        members = x[y == c]
        found.append(members[torch.arange(20) % len(members)])
    return torch.stack(found)


def subsets(count: int, size: int, characters: int, seed: int) -> Tensor:
    """So many subsets `[count, size]` of the characters, in random order."""
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randperm(characters, generator=generator)[:size] for _ in range(count)])


def gathered(characters: Tensor, chosen: Tensor, part: str) -> tuple[Tensor, Tensor]:
    """Rows `[M, size * drawings, d]` of subsets of the characters, and their labels, which are the same for all."""
    rows = characters[chosen][:, :, DRAWINGS[part]]
    labels = torch.arange(chosen.shape[1], device=rows.device).repeat_interleave(rows.shape[2])
    return rows.flatten(1, 2), labels


def trained_heads(x: Tensor, labels: Tensor, seed: int, steps: int, decay: float = 1e-3) -> Tensor:
    """Linear heads `[M, classes, d + 1]`, the bias last, each trained on rows `[M, n, d]` of its own from one start."""
    generator = torch.Generator().manual_seed(seed)
    classes = int(labels.max()) + 1
    start = 0.01 * torch.randn(classes, x.shape[2] + 1, generator=generator).to(x)
    heads = start.expand(len(x), -1, -1).clone().requires_grad_()
    optimizer = torch.optim.Adam([heads], lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        logits = outputs_of(heads, x)
        loss = F.cross_entropy(logits.flatten(0, 1), labels.repeat(len(x)), reduction="sum") / len(labels)
        (loss + decay * heads.square().sum()).backward()
        optimizer.step()
    return heads.detach()


def outputs_of(heads: Tensor, x: Tensor) -> Tensor:
    """Logits `[M, n, classes]` of heads for rows, of each its own `[M, n, d]` or the same for all `[n, d]`."""
    return x @ heads[..., :-1].transpose(-1, -2) + heads[..., None, :, -1]


def mean(values: Sequence[float]) -> float:
    """The mean of some numbers."""
    return sum(values) / len(values)

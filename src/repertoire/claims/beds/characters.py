"""A text that comes with Python, and language models of its characters.

The reference of the Python language, half a million characters by topic: English that people wrote, with examples.
Every fifth topic is kept for testing, whatever the seed. A model reads eight characters and tells the next.
"""

from __future__ import annotations

import functools
import pydoc_data.topics
from collections import Counter

import numpy as np
import torch
from torch import Tensor, nn

from repertoire.claims import Budget

__all__ = ["CONTEXT", "TEXT", "Reader", "parameters_of", "places", "tested", "texts"]

TEXT = "the reference of the Python language, character by character"
CONTEXT, KINDS = 8, 64
"""Characters that are read for the next one, and how many are told apart."""


@functools.cache
def texts() -> tuple[np.ndarray, np.ndarray]:
    """What is learned from, and what is not, as numbers of characters. The most frequent 63 have a number each, and all
    others the last."""
    topics = [text for _, text in sorted(pydoc_data.topics.topics.items())]
    parts = ["".join(text for place, text in enumerate(topics) if (place % 5 == 0) == test) for test in (False, True)]
    known = [letter for letter, _ in Counter(parts[0]).most_common(KINDS - 1)]
    numbers = {letter: number for number, letter in enumerate(known)}
    train, test = (np.array([numbers.get(letter, KINDS - 1) for letter in part]) for part in parts)
    return train, test


def places(text: np.ndarray, starts: np.ndarray) -> tuple[Tensor, Tensor]:
    """Contexts `[N, 8]` that begin at some places, and the characters after them `[N]`."""
    windows = torch.from_numpy(text[starts[:, None] + np.arange(CONTEXT + 1)])
    return windows[:, :-1], windows[:, -1]


def tested(budget: Budget) -> tuple[Tensor, Tensor]:
    """Contexts of the text that nobody learns from, evenly spread, and the characters after them."""
    test, count = texts()[1], budget.pick(smoke=400, small=4000, full=20_000)
    return places(test, np.linspace(0, len(test) - CONTEXT - 1, count).astype(int))


class Reader(nn.Sequential):
    """The characters before, embedded, and two hidden layers: logits of the next.

    Args:
        width: of both hidden layers.
    """

    def __init__(self, width: int) -> None:
        super().__init__(
            nn.Embedding(KINDS, 8), nn.Flatten(), nn.Linear(8 * CONTEXT, width), nn.ReLU(), nn.Linear(width, width),
            nn.ReLU(), nn.Linear(width, KINDS),
        )  # fmt: skip


def parameters_of(network: nn.Module) -> int:
    """How many numbers a network learns."""
    return sum(p.numel() for p in network.parameters())

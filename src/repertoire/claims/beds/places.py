"""Places seen from several sides: digits under disturbances of their own."""

from __future__ import annotations

import torch
from torch import Tensor

from repertoire.claims.beds.digits import rotated_digits
from repertoire.data import load


def seen_places(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Turned digits: rows and classes of six digits' training images, and of the other four digits' test images."""
    splits = load("digits", seed=seed)
    known = torch.randperm(10, generator=torch.Generator().manual_seed(seed))[:6]
    parts = []
    for images, keep_known in ((splits.train, True), (splits.test, False)):
        rows, digits, turns = rotated_digits(images)
        kept = torch.isin(digits, known) == keep_known
        parts += [rows[kept], (4 * digits + turns)[kept]]
    inputs, labels, test_inputs, test_labels = parts
    return inputs, labels, test_inputs, test_labels

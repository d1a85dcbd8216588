"""Images of which some classes have fewer than others."""

from __future__ import annotations

import numpy as np

from repertoire.data import ImageSet


def thinned_out(images: ImageSet, seed: int, counts: list[int]) -> ImageSet:
    """So many images of each class, drawn at random; the classes are put in a random order first."""
    generator = np.random.default_rng(seed)
    kept = []
    for label, count in zip(generator.permutation(len(counts)), counts, strict=True):
        members = np.flatnonzero(images.labels == label)
        kept.append(generator.choice(members, min(count, len(members)), replace=False))
    return images.subset(np.sort(np.concatenate(kept)))

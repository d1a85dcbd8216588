"""A hierarchy over samples by their features, and the subgroups on which a model falls behind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from repertoire.diagnostics._stream import Features, sample
from repertoire.errors import ConfigError, ShapeError

__all__ = ["Hierarchy", "Subgroup", "hierarchy", "macro_std", "weak_subgroups"]

WARD = 3000
"""Samples up to which the tree is agglomerative; its time and memory grow with their square."""


@dataclass(frozen=True)
class Hierarchy:
    """A binary tree over samples, in which every node is a run of `order`, so that it costs four numbers.

    Attributes:
        order: int64 `[N]`, the samples, so that those of a node stand side by side.
        start, end: int64 `[nodes]`, the run of each node, end excluded. Node 0 is the root; children come after
        parents. parent: int64 `[nodes]`, -1 for the root.
        depth: int64 `[nodes]`, 0 for the root.
    """

    order: np.ndarray
    start: np.ndarray
    end: np.ndarray
    parent: np.ndarray
    depth: np.ndarray

    def members(self, node: int) -> np.ndarray:
        """The samples of a node."""
        return self.order[self.start[node] : self.end[node]]

    def sums(self, values: np.ndarray) -> np.ndarray:
        """The sum of a value of each sample over the samples of each node, float64 `[nodes]`."""
        total = np.concatenate([[0.0], np.cumsum(np.asarray(values, dtype=np.float64)[self.order])])
        return total[self.end] - total[self.start]

    @property
    def sizes(self) -> np.ndarray:
        """Samples of each node, int64 `[nodes]`."""
        return self.end - self.start


def hierarchy(
    features: Features | Tensor, *, leaf: int = 8, method: Literal["auto", "ward", "bisecting"] = "auto", seed: int = 0
) -> Hierarchy:
    """Samples as a binary tree by their features, for a treemap or for finding subgroups.

    Bertucci et al., *DendroMap: Visual Exploration of Large-Scale Image Datasets for Machine Learning with Treemaps*
    (2022), which builds the tree from the bottom (agglomerative, Ward). That takes a matrix of pairs; from a few
    thousand samples on the tree is built from the top here, by 2-means of each node: time O(Nd log N), memory O(Nd).

    Args:
        features: float `[N, d]`.
        leaf: nodes of at most so many samples are not divided.
        method: "ward", "bisecting", or "auto" (default): ward up to 3000 samples.
        seed: of the first centres of "bisecting".

    Raises:
        ShapeError: features that are no floating point matrix, or none. DataError: features that are not finite.
            ConfigError: leaf below 1, or no such method.

    Example:
        >>> import torch
        >>> from repertoire.diagnostics import hierarchy
        >>> tree = hierarchy(torch.tensor([[0.0], [9.0], [0.1], [9.1]]), leaf=2)
        >>> [sorted(tree.members(node).tolist()) for node in range(3)]
        [[0, 1, 2, 3], [0, 2], [1, 3]]
    """
    if leaf < 1:
        raise ConfigError(f"leaf must be 1 or more, found {leaf}")
    if method not in ("auto", "ward", "bisecting"):
        raise ConfigError(f"method must be 'auto', 'ward' or 'bisecting', found {method!r}")
    rows, _ = sample(features, 2**62)
    if not len(rows):
        raise ShapeError("features must have at least one row, found none")
    rows = rows.float().cpu()
    if method == "ward" or (method == "auto" and len(rows) <= WARD):
        return _ward(rows.numpy(), leaf)
    return _bisecting(rows, leaf, seed)


def _assemble(count: int, order: np.ndarray, nodes: list[tuple[int, int, int, int]]) -> Hierarchy:
    start, end, parent, depth = (np.array(column, dtype=np.int64) for column in zip(*nodes, strict=True))
    return Hierarchy(order, start, end, parent, depth)


def _ward(rows: np.ndarray, leaf: int) -> Hierarchy:
    from scipy.cluster.hierarchy import linkage

    count = len(rows)
    if count == 1:
        return _assemble(1, np.zeros(1, dtype=np.int64), [(0, 1, -1, 0)])
    merges = linkage(rows, "ward")
    sizes = np.concatenate([np.ones(count), merges[:, 3]]).astype(np.int64)
    children = merges[:, :2].astype(np.int64)
    order = np.empty(count, dtype=np.int64)
    nodes: list[tuple[int, int, int, int]] = []
    # From the root down; the smaller sample number first, so that equal trees are laid out alike.
    waiting = [(2 * count - 2, 0, -1, 0, True)]
    while waiting:
        cluster, start, parent, depth, shown = waiting.pop()
        size = int(sizes[cluster])
        number = parent
        if shown:
            number = len(nodes)
            nodes.append((start, start + size, parent, depth))
        if cluster < count:
            order[start] = cluster
            continue
        left, right = children[cluster - count].tolist()
        below = shown and size > leaf
        waiting.append((right, start + int(sizes[left]), number, depth + 1, below))
        waiting.append((left, start, number, depth + 1, below))
    return _assemble(count, order, nodes)


def _bisecting(rows: Tensor, leaf: int, seed: int) -> Hierarchy:
    generator = torch.Generator().manual_seed(seed)
    order = torch.arange(len(rows))
    nodes: list[tuple[int, int, int, int]] = []
    waiting = [(0, len(rows), -1, 0)]
    while waiting:
        start, end, parent, depth = waiting.pop()
        number = len(nodes)
        nodes.append((start, end, parent, depth))
        if end - start <= leaf:
            continue
        members = order[start:end]
        side = _halves(rows[members], generator)
        left = int((~side).sum())
        order[start:end] = torch.cat([members[~side], members[side]])
        waiting.append((start + left, end, number, depth + 1))
        waiting.append((start, start + left, number, depth + 1))
    return _assemble(len(rows), order.numpy(), nodes)


def _halves(rows: Tensor, generator: torch.Generator, iterations: int = 8) -> Tensor:
    """2-means along the line between two centres, bool `[n]`; never all on one side."""
    first = rows[int(torch.randint(len(rows), (), generator=generator))]
    a = rows[(rows - first).square().sum(1).argmax()]
    b = rows[(rows - a).square().sum(1).argmax()]
    side = None
    for _ in range(iterations):
        # Nearer to b than to a, as one product.
        new = rows @ (b - a) > (b.square().sum() - a.square().sum()) / 2
        if side is not None and torch.equal(new, side):
            break
        side = new
        held = int(side.sum())
        if held in (0, len(rows)):
            break
        b = side.float() @ rows / held
        a = (rows.sum(0) - b * held) / (len(rows) - held)
    assert side is not None
    if int(side.sum()) in (0, len(rows)):  # as many equal rows as there are
        side = torch.arange(len(rows)) >= len(rows) // 2
    return side


@dataclass(frozen=True)
class Subgroup:
    """A node of a hierarchy on which a model is worse than elsewhere.

    Attributes:
        node: of the hierarchy.
        members: int64, its samples.
        errors: how many of them the model gets wrong.
        p_value: of so many errors or more at the overall rate, times the number of nodes that were looked at
            (Bonferroni), at most 1.
    """

    node: int
    members: np.ndarray
    errors: int
    p_value: float

    @property
    def error(self) -> float:
        """Share of its samples that the model gets wrong."""
        return self.errors / len(self.members)


def weak_subgroups(
    tree: Hierarchy, wrong: np.ndarray, *, smallest: int = 10, most: int = 5, level: float = 0.05
) -> list[Subgroup]:
    """Subgroups on which a model falls behind: nodes with more errors than chance gives them, none inside another.

    Args:
        tree: of the samples.
        wrong: bool `[N]`, the samples that the model gets wrong.
        smallest: samples of a subgroup, at least.
        most: subgroups that are named.
        level: largest p-value, after correction for the number of nodes.

    Returns:
        The subgroups, least likely by chance first; none where errors are spread evenly.

    Raises:
        ShapeError: not one entry for each sample.

    Example:
        >>> import numpy, torch
        >>> from repertoire.diagnostics import hierarchy, weak_subgroups
        >>> x = torch.cat([torch.randn(50, 2, generator=torch.Generator().manual_seed(0)), torch.full((15, 2), 9.0)])
        >>> found = weak_subgroups(hierarchy(x), numpy.arange(65) >= 50)
        >>> sorted(found[0].members.tolist()) == list(range(50, 65))
        True
    """
    if np.shape(wrong) != np.shape(tree.order):
        raise ShapeError(
            f"wrong must have one entry for each of {len(tree.order)} samples, found {list(np.shape(wrong))}"
        )
    from scipy.stats import binom

    errors = np.rint(tree.sums(np.asarray(wrong, dtype=bool))).astype(np.int64)
    sizes = tree.sizes
    looked_at = (sizes >= smallest) & (sizes < len(tree.order))
    # A single error is no pattern.
    candidates = np.flatnonzero(looked_at & (errors > 1))
    if not len(candidates):
        return []
    rate = errors[0] / sizes[0]
    p = np.minimum(1.0, binom.sf(errors[candidates] - 1, sizes[candidates], rate) * int(looked_at.sum()))
    taken = np.zeros(len(tree.order), dtype=bool)
    found: list[Subgroup] = []
    # Of equal p-values (zero, where there are very many errors) the larger group says more.
    for i in np.lexsort((-sizes[candidates], p)):
        node = int(candidates[i])
        if p[i] > level or len(found) == most:
            break
        run = slice(tree.start[node], tree.end[node])
        if not taken[run].any():
            taken[run] = True
            found.append(Subgroup(node, tree.members(node), int(errors[node]), float(p[i])))
    return found


def macro_std(correct: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> float:
    r"""Spread of accuracy over the subgroups of a class, on average over classes; 0 is even.

    Chiu, Chen and Ma, *Better May Not Be Fairer: A Study on Subgroup Discrepancy in Image Classification* (2023): the
    standard deviation of the accuracies of a class's subgroups, weighted by their sizes, averaged over the classes,

    .. math:: \frac1K \sum_k \sqrt{\sum_g \frac{n_{kg}}{n_k} \, (a_{kg} - a_k)^2}, \qquad
        a_k = \sum_g \frac{n_{kg}}{n_k} \, a_{kg}

    Args:
        correct: bool `[N]`, the samples that the model gets right.
        labels: integers `[N]`.
        groups: integers or texts `[N]`: background colours in the paper, or anything else that is known of a sample.

    Returns:
        A number in [0, 0.5]; nan without samples.

    Raises:
        ShapeError: entries of different lengths.

    Example:
        >>> import numpy
        >>> from repertoire.diagnostics import macro_std
        >>> macro_std(numpy.array([True, True, False, False]), numpy.zeros(4, int), numpy.array([0, 0, 1, 1]))
        0.5
    """
    right = np.asarray(correct, dtype=np.float64)
    if right.ndim != 1 or not right.shape == np.shape(labels) == np.shape(groups):
        raise ShapeError(
            "correct, labels and groups must be of one length, found "
            f"{list(right.shape)}, {list(np.shape(labels))} and {list(np.shape(groups))}"
        )
    if not len(right):
        return float("nan")
    _, classes = np.unique(labels, return_inverse=True)
    _, parts = np.unique(groups, return_inverse=True)
    _, cells = np.unique(classes * (parts.max() + 1) + parts, return_inverse=True)
    sizes = np.bincount(cells)
    accuracy = np.bincount(cells, right) / sizes
    owner = np.zeros(len(sizes), dtype=np.int64)
    owner[cells] = classes
    totals = np.bincount(owner, sizes)
    mean = np.bincount(owner, sizes * accuracy) / totals
    variance = np.bincount(owner, sizes * (accuracy - mean[owner]) ** 2) / totals
    return float(np.sqrt(variance).mean())

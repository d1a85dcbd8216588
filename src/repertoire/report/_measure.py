"""What is measured of a run to diagnose it: its features, its network, its data, and another run beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from repertoire import diagnostics
from repertoire.adapters import plain_state
from repertoire.data import ImageSet, plain
from repertoire.errors import DataError, RunError
from repertoire.report._device import device_of
from repertoire.report._text import label
from repertoire.tasks import Outputs
from repertoire.train import Run, kept_checkpoints, outputs, probe_outputs

if TYPE_CHECKING:
    from repertoire.diagnostics import Hierarchy, LabelErrors, NearDuplicates, Subgroup

__all__ = ["MOST_TRAIN", "Measurements", "measure"]

MOST_TRAIN = 20_000
"""Training images that are looked at; of more, so many are drawn."""

MOST_LAYERS = 512
"""Test images whose activations inside the network are looked at."""

MOST_PROBED = 5000
"""Training images that the linear probe is fitted to."""

MOST_CHECKPOINT = 2000
"""Training images that each checkpoint is looked at with."""

BLOCKS = 16
"""Blocks whose features are compared."""


@dataclass(frozen=True)
class Measurements:
    """Findings of `measure`. Positions are those of the image sets `train` and `test`.

    Attributes:
        numbers: everything that is a number, ready for JSON.
        train, test: the images that were looked at, all of them labelled.
        seen, unseen: what the model says of them.
        eigenvalues: of the test features.
        persistence: times of the test features, see `repertoire.diagnostics.persistence_times`.
        overlap: shares of classes among the neighbours of each class, test, `[K, K]` over all classes of the run.
        cka: between the blocks, `[B, B]`; with `blocks`, their names.
        against: between the blocks of both runs, where there is another.
        doubtful: labels of the training and of the test images that are likely wrong.
        copies: test images that are nearly a training image.
        tree: of the test images; weak: its nodes on which the model falls behind.
        harmful: training images that hurt the test images most, and their influence.
    """

    numbers: dict[str, Any]
    train: ImageSet
    test: ImageSet
    seen: Outputs
    unseen: Outputs
    eigenvalues: np.ndarray
    persistence: np.ndarray
    overlap: np.ndarray
    cka: np.ndarray
    blocks: list[str]
    against: np.ndarray | None
    other_blocks: list[str]
    doubtful: Mapping[str, LabelErrors]
    copies: NearDuplicates
    tree: Hierarchy
    weak: list[Subgroup]
    harmful: list[tuple[int, float]]


def measure(run: Run, against: Run | None = None) -> Measurements:
    """Everything about a run, and how it compares with another one.

    Raises:
        RunError: the data cannot be read, or has no labelled test image; or the other run sees other images.
        DataError: features that are not finite; the images are named.
    """
    train = _labelled(run.splits.train, MOST_TRAIN)
    test = _labelled(run.splits.test, 10**9)
    if not len(test) or not len(train):
        raise RunError(
            f"{run.directory} has no labelled {'test' if len(train) else 'training'} image to diagnose it by"
        )
    if against is not None:
        _fits(run, against)
    model = run.model
    seen, unseen = outputs(model, train), outputs(model, test)
    for images, found in ((train, seen), (test, unseen)):
        _finite(images, found)
    classes = len(run.classes)
    x, z = torch.from_numpy(seen.embeddings), torch.from_numpy(unseen.embeddings)
    own, truth = torch.from_numpy(seen.labels), torch.from_numpy(unseen.labels)
    wrong = unseen.logits.argmax(1) != unseen.labels
    numbers: dict[str, Any] = {
        "run": str(run.directory),
        "classes": [label(name) for name in run.classes],
        "train_images": len(train),
        "train_images_total": len(run.splits.train),
        "test_images": len(test),
        "accuracy": float((~wrong).mean()),
        "train_accuracy": float((seen.logits.argmax(1) == seen.labels).mean()),
    }
    spectrum = diagnostics.eigenvalue_spectrum(z)
    numbers["geometry"] = _geometry(z, truth, spectrum) | _collapse(model, x, own, z, truth)
    numbers["collapse_over_training"] = _trend(run, train)
    times = diagnostics.persistence_times(z)
    overlap = diagnostics.class_overlap(z, truth)
    present = np.unique(unseen.labels)
    shares = np.zeros((classes, classes))
    shares[np.ix_(present, present)] = overlap.shares.numpy()
    numbers["separability"] = {
        "persistence": float(times.mean()) if len(times) else None,
        "fisher_ratio": _number(diagnostics.fisher_ratio(z, truth)),
        "neighbour_purity": overlap.purity,
        "knn_accuracy": _probe("knn", seen, unseen, classes),
        "linear_probe_accuracy": _probe("linear", _some(seen, MOST_PROBED), unseen, classes),
        "rotation_probe_accuracy": _rotation(model, test),
        "overlapping_classes": [
            {"classes": [label(run.classes[int(present[a])]), label(run.classes[int(present[b])])], "share": share}
            for a, b, share in overlap.pairs(10)
        ],
    }
    cka, blocks, layers = _network(model, test)
    numbers["network"] = layers | {"blocks": blocks, "cka": cka.tolist()}
    told = {
        "train": (train, own, diagnostics.neighbour_votes(x, own, classes)),
        "test": (test, truth, torch.from_numpy(unseen.probabilities)),
    }
    doubtful = {name: diagnostics.label_errors(p, labels) for name, (_, labels, p) in told.items()}
    copies = diagnostics.near_duplicates(_thumbnails(test), _thumbnails(train))
    tree = diagnostics.hierarchy(z)
    weak = diagnostics.weak_subgroups(tree, wrong)
    groups = _parts(tree)
    harmful = _harmful(x, own, z, truth, classes)
    numbers["data"] = {
        name: _data_numbers(images, run.classes, doubtful[name])
        | {"agreement": float((p.argmax(1) == labels).double().mean())}
        for name, (images, labels, p) in told.items()
    } | {
        "copies": [
            {"test": label(test.names[i]), "train": label(train.names[j]), "cosine": s}
            for i, j, s in _rows(copies.index, copies.match, copies.similarity)
        ],
        "weak_subgroups": [
            {"images": len(group.members), "errors": group.errors, "error": group.error, "p_value": group.p_value}
            for group in weak
        ],
        "macro_std": diagnostics.macro_std(~wrong, unseen.labels, groups),
        "macro_std_by_factor": {
            name: diagnostics.macro_std(~wrong, unseen.labels, np.asarray(values))
            for name, values in test.factors.items()
            if np.ndim(values) == 1 and np.asarray(values).dtype.kind in "iubUS"
        },
        "harmful": [{"image": label(train.names[i]), "influence": value} for i, value in harmful],
    }
    cross: np.ndarray | None = None
    other_blocks: list[str] = []
    if against is not None:
        cross, other_blocks, numbers["against"] = _against(run, against, test, train, (x, own), (z, truth))
    return Measurements(
        numbers, train, test, seen, unseen, spectrum.eigenvalues.numpy(), times.numpy(), shares, cka, blocks, cross,
        other_blocks, doubtful, copies, tree, weak, harmful,
    )  # fmt: skip


def _labelled(images: ImageSet, most: int) -> ImageSet:
    known = np.flatnonzero(images.labels >= 0)
    if len(known) > most:
        known = np.sort(np.random.default_rng(0).choice(known, most, replace=False))
    return images if len(known) == len(images) else images.subset(known)


def _some(found: Outputs, most: int) -> Outputs:
    if len(found.labels) <= most:
        return found
    index = np.sort(np.random.default_rng(0).choice(len(found.labels), most, replace=False))
    return Outputs(found.logits[index], found.embeddings[index], found.labels[index])


def _finite(images: ImageSet, found: Outputs) -> None:
    bad = np.flatnonzero(~(np.isfinite(found.embeddings).all(1) & np.isfinite(found.logits).all(1)))
    if len(bad):
        named = ", ".join(label(images.names[i]) for i in bad[:5]) + (", ..." if len(bad) > 5 else "")
        raise DataError(
            f"the features of {len(bad)} of {len(images)} images are not finite ({named}); train with --precision fp32 "
            "or a lower --lr, or look at these images"
        )


def _fits(run: Run, against: Run) -> None:
    mine = (run.classes, run.size, run.info["channels"])
    other = (against.classes, against.size, against.info["channels"])
    if mine != other:
        raise RunError(
            f"{against.directory} cannot be compared with {run.directory}: the one is of {len(other[0])} classes and "
            f"{other[2]} x {other[1]} x {other[1]} pixels, the other of {len(mine[0])} classes and "
            f"{mine[2]} x {mine[1]} x {mine[1]}; name a run on the same data"
        )


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _rows(*columns: Tensor) -> list[tuple[Any, ...]]:
    return list(zip(*(column.tolist() for column in columns), strict=True))


def _geometry(z: Tensor, truth: Tensor, spectrum: diagnostics.Spectrum) -> dict[str, Any]:
    return {
        "width": spectrum.width,
        "samples": spectrum.samples,
        "rank": spectrum.rank,
        "effective_rank": spectrum.effective_rank,
        "participation_ratio": spectrum.participation_ratio,
        "directions_for_95_percent": spectrum.directions(0.95),
        "limited_by_samples": spectrum.limited_by_samples,
        "constant_features": spectrum.constant.tolist(),
        "alignment": _number(diagnostics.alignment(z, truth)),
        "uniformity": _number(diagnostics.uniformity(z[:: max(1, len(z) // 10_000)])),
        "wasserstein_uniformity": _number(diagnostics.wasserstein_uniformity(z)),
    }


def _collapse(model: Any, x: Tensor, own: Tensor, z: Tensor, truth: Tensor) -> dict[str, Any]:
    found: dict[str, Any] = {}
    linear = getattr(model.head, "linear", None)
    for name, features, labels in (("train", x, own), ("test", z, truth)):
        values = diagnostics.neural_collapse(features, labels)._asdict()
        if isinstance(linear, nn.Linear):
            bias = None if linear.bias is None else linear.bias.detach().cpu()
            values |= diagnostics.classifier_collapse(features, labels, linear.weight.detach().cpu(), bias)._asdict()
        found[f"neural_collapse_{name}"] = {key: _number(value) for key, value in values.items()}
    return found


def _trend(run: Run, train: ImageSet) -> list[dict[str, Any]]:
    """Neural collapse at each checkpoint that was kept, by step."""
    images = _labelled(train, MOST_CHECKPOINT)
    rows = []
    model = run.model
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    prefix = "average" if run.config.ema else "method"
    try:
        for step, tensors in kept_checkpoints(run.path):
            own = f"{prefix}.model."
            state = {n.removeprefix(own): value for n, value in tensors.items() if n.startswith(own)}
            # What was frozen is in no checkpoint of steps.
            model.load_state_dict(kept | plain_state(state, run.config.adapter))
            found = outputs(model, images)
            values = diagnostics.neural_collapse(torch.from_numpy(found.embeddings), torch.from_numpy(found.labels))
            rows.append({"step": step} | {key: _number(value) for key, value in values._asdict().items()})
    finally:
        model.load_state_dict(kept)
    return rows


def _probe(kind: Any, seen: Outputs, unseen: Outputs, classes: int) -> float | None:
    if len(np.unique(seen.labels)) < 2:
        return None
    result, _ = probe_outputs(kind, seen, unseen, classes)
    return float((result.logits.argmax(1) == unseen.labels).mean())


def _rotation(model: Any, test: ImageSet) -> float | None:
    pixels = plain(torch.from_numpy(test.pixels(np.arange(len(test))[:: max(1, len(test) // 400)])))
    pixels = pixels.to(device_of(model))
    if pixels.shape[2] != pixels.shape[3] or len(pixels) < 20:
        return None
    return diagnostics.rotation_probe(model.embed, pixels)


def _inner(model: Any, images: ImageSet) -> tuple[list[str], list[Tensor]]:
    """The output of some blocks, pooled over positions, of some images."""
    blocks = model.backbone.blocks
    chosen = sorted({round(k) for k in np.linspace(0, len(blocks) - 1, min(BLOCKS, len(blocks)))})
    found: dict[int, list[Tensor]] = {k: [] for k in chosen}

    def keep(k: int) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            rows = output.flatten(2).mean(2) if output.ndim == 4 else output.mean(1) if output.ndim == 3 else output
            found[k].append(rows.float().cpu())

        return hook

    handles = [blocks[k].register_forward_hook(keep(k)) for k in chosen]
    try:
        outputs(model, images)
    finally:
        for handle in handles:
            handle.remove()
    return [f"block {k + 1}" for k in chosen], [torch.cat(found[k]) for k in chosen]


def _network(model: Any, test: ImageSet) -> tuple[np.ndarray, list[str], dict[str, Any]]:
    few = _labelled(test, MOST_LAYERS)
    names, inner = _inner(model, few)
    cka = diagnostics.cka_matrix(inner)
    pixels = plain(torch.from_numpy(few.pixels(slice(None)))).to(device_of(model))
    sparsity = diagnostics.activation_sparsity(model, pixels.split(128))
    return (
        cka.nan_to_num(0.0).numpy(),
        names,
        {
            "sparsity": [
                {"layer": row.name, "kind": row.kind, "active": row.active, "units": row.units, "dead": row.dead}
                for row in sparsity
            ],
            "complexity": [
                {"layer": row.name, "channels": row.channels, "distinct": row.distinct}
                for row in diagnostics.network_complexity(model.backbone)
            ],
        },
    )


def _thumbnails(images: ImageSet) -> Tensor:
    parts = [
        diagnostics.thumbnails(torch.from_numpy(images.pixels(slice(start, start + 512))))
        for start in range(0, len(images), 512)
    ]
    return torch.cat(parts)


def _parts(tree: Hierarchy, least: int = 20) -> np.ndarray:
    """The subgroup of each sample: the first node on its way down of which both halves would be small."""
    groups = np.zeros(len(tree.order), dtype=np.int64)
    smallest = np.full(len(tree.start), len(tree.order))
    np.minimum.at(smallest, tree.parent[1:], tree.sizes[1:])
    for node in range(1, len(tree.start)):  # parents come first, so that the deepest wins
        if smallest[tree.parent[node]] >= least:
            groups[tree.members(node)] = node
    return groups


def _data_numbers(images: ImageSet, classes: Sequence[str], found: LabelErrors) -> dict[str, Any]:
    return {
        "images": len(images),
        "wrong_labels": len(found.index),
        "surely_wrong": int((found.margin >= 0.5).sum()),
        "wrong_label_share": found.share,
        "most_doubtful": [
            {
                "image": label(images.names[i]),
                "label": label(classes[int(images.labels[i])]),
                "suggested": label(classes[k]),
                "margin": margin,
            }
            for i, k, margin in _rows(found.index[:50], found.suggested[:50], found.margin[:50])
        ],
    }


def _harmful(x: Tensor, own: Tensor, z: Tensor, truth: Tensor, classes: int, most: int = 12) -> list[tuple[int, float]]:
    """Training images of the least mean `last_layer_lpntk` with the test images, relative to the mean of all."""
    # The mean over the test set of a kernel that is a product is a product of means of outer products.
    signs = 1 - 2 * torch.nn.functional.one_hot(truth, classes).double()
    rows = torch.cat([z.double(), torch.ones(len(z), 1)], 1)
    mean = signs.T @ rows / len(z)
    mine = 1 - 2 * torch.nn.functional.one_hot(own, classes).double()
    influence = (mine * (torch.cat([x.double(), torch.ones(len(x), 1)], 1) @ mean.T)).sum(1)
    influence = influence / influence.abs().mean().clamp_min(1e-300)
    order = influence.argsort()[:most]
    return [(int(i), float(influence[i])) for i in order if float(influence[i]) < 0]


def _against(
    run: Run, other: Run, test: ImageSet, train: ImageSet, fitted: tuple[Tensor, Tensor], tested: tuple[Tensor, Tensor]
) -> tuple[np.ndarray, list[str], dict[str, Any]]:
    few = _labelled(test, MOST_LAYERS)
    _, mine = _inner(run.model, few)
    names, theirs = _inner(other.model, few)
    seen = _some_images(train, MOST_PROBED)
    x = fitted[0][seen], torch.from_numpy(outputs(other.model, train.subset(seen.numpy())).embeddings)
    result = outputs(other.model, test)
    z = tested[0], torch.from_numpy(result.embeddings)
    alike = diagnostics.compare_representations(*z) if len(test) >= 3 else None
    labels = fitted[1][seen]
    stitched = diagnostics.stitching(x, labels, z, tested[1]) if len(labels.unique()) > 1 else None
    cross = diagnostics.cka_matrix(mine, theirs).nan_to_num(0.0).numpy()
    return (
        cross,
        names,
        {
            "run": str(other.directory),
            "accuracy": float((result.logits.argmax(1) == result.labels).mean()),
            "cka": cross.tolist(),
            "last_layer_cka": _number(diagnostics.linear_cka(*z)),
            "relative": None if alike is None else vars(alike),
            "stitching": None if stitched is None else vars(stitched),
        },
    )


def _some_images(images: ImageSet, most: int) -> Tensor:
    index = np.arange(len(images))
    if len(index) > most:
        index = np.sort(np.random.default_rng(0).choice(len(index), most, replace=False))
    return torch.from_numpy(index)

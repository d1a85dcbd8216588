"""Puts the diagnosis of a run together: findings, numbers, and one HTML page that opens offline."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from repertoire.diagnostics import Landscape
from repertoire.errors import option
from repertoire.files import check_place, write_text
from repertoire.report import _bars, _figures, _samples, _text, _treemap
from repertoire.report._advice import Advice
from repertoire.report._findings import findings
from repertoire.report._measure import Measurements, measure
from repertoire.report._optimisation import landscape_section, optimisation
from repertoire.report._remedies import Remedies
from repertoire.report._render import render
from repertoire.report._text import number, percent
from repertoire.train import Run

__all__ = ["Diagnosis", "diagnose"]

SHOWN = 12
"""Images of each gallery."""

LAYERS = 24
"""Layers that a figure names; of more, those that say most."""


@dataclass(frozen=True)
class Diagnosis:
    """Findings about a run: what is healthy about it and what is not.

    Attributes:
        findings: what looks wrong, on what evidence, and what to try; worst first, empty where nothing is off.
        numbers: everything that was measured, ready for JSON.
        measured: the same with images, features and arrays.
        landscape: the loss about the weights, where it was asked for.
    """

    findings: Sequence[Advice]
    numbers: Mapping[str, Any]
    measured: Measurements
    landscape: Landscape | None = None

    def write(self, out: str | os.PathLike[str]) -> Path:
        """Writes the page: one HTML file that opens offline.

        Raises:
            RunError: nothing can be written to `out`.
        """
        target = check_place(out, option("out"))
        page = render("diagnosis.html.j2", _content(self), styles=("style.css", "diagnosis.css"), script="diagnosis.js")
        write_text(target, page)
        return target


def diagnose(run: Run, against: Run | None = None, *, landscape: bool = False) -> Diagnosis:
    """Diagnoses a run: is its representation healthy, and what is wrong in its data?

    Its training and test images pass through its model (of more than 20,000 training images, as many are drawn), and
    what is found of them is measured with `repertoire.diagnostics`: geometry, separability, the network's layers, and
    the data.

    Args:
        run: what `repertoire.train.fit` or `repertoire.train.load` gave.
        against: another run on the same data, to compare layers and to stitch classifiers with.
        landscape: also look at the loss about the weights: landscape, curvature, sharpness and gradient noise. It takes
            some hundred passes over 128 training images.

    Raises:
        RunError: the data cannot be read, has no labelled image, or the other run is of other classes or sizes.
        DataError: features that are not finite; the images are named.

    Example:
        >>> import repertoire
        >>> found = repertoire.report.diagnose(repertoire.train.load("runs/demo"))  # doctest: +SKIP
        >>> found.write("diagnosis.html")  # doctest: +SKIP
        PosixPath('diagnosis.html')
    """
    run.check_answers("diagnose")
    run.check_images("diagnose")
    measured = measure(run, against)
    found = findings(measured.numbers, Remedies(run.config, len(run.history) or None, str(run.directory)))
    if not landscape:
        return Diagnosis(found, measured.numbers, measured)
    about, plane = optimisation(run, measured.train)
    return Diagnosis(found, {**measured.numbers, "optimisation": about}, measured, plane)


def _content(diagnosis: Diagnosis) -> dict[str, Any]:
    m, numbers = diagnosis.measured, diagnosis.numbers
    sections = [
        _spectrum(m),
        _collapse(m),
        _trend(m),
        _sphere(m),
        _persistence(m),
        _scores(m),
        _overlap(m),
        _layers(m),
        _sparsity(m),
        _complexity(m),
        *_other(m),
    ]
    if diagnosis.landscape is not None:
        sections.append(landscape_section(numbers["optimisation"], diagnosis.landscape))
    predicted = m.unseen.logits.argmax(1)
    confidence = m.unseen.probabilities.max(1)
    return {
        "run": numbers["run"],
        "findings": diagnosis.findings,
        "numbers": numbers,
        "sections": [section for section in sections if section is not None],
        "galleries": [
            gallery for gallery in (_doubtful(m, "test"), _doubtful(m, "train"), _copies(m), _harm(m)) if gallery
        ],
        "weak": [
            {
                "node": group.node,
                "images": len(group.members),
                "errors": group.errors,
                "error": group.error,
                "name": name,
            }
            for group, name in zip(m.weak, _names(m), strict=True)
        ],
        "map": _map(m, predicted, confidence),
    }


def _map(m: Measurements, predicted: np.ndarray, confidence: np.ndarray) -> dict[str, Any] | None:
    if len(m.test) > _treemap.MOST_TILES:
        # The tree of all would not fit on the page: that of a part is made anew.
        import torch

        from repertoire.diagnostics import hierarchy

        index = np.sort(np.random.default_rng(0).choice(len(m.test), _treemap.MOST_TILES, replace=False))
        tree = hierarchy(torch.from_numpy(m.unseen.embeddings[index]))
        found = _treemap.treemap(tree, m.test.subset(index), predicted[index], confidence[index], m.numbers["classes"])
        return found | {"total": len(m.test), "whole": False}
    return _treemap.treemap(m.tree, m.test, predicted, confidence, m.numbers["classes"]) | {
        "total": len(m.test),
        "whole": True,
    }


def _section(title: str, figure: Markup | None, sentence: str) -> dict[str, Any] | None:
    return None if figure is None else {"title": title, "figure": figure, "sentence": sentence}


def _spectrum(m: Measurements) -> dict[str, Any] | None:
    geometry = m.numbers["geometry"]
    values = m.eigenvalues[m.eigenvalues > 0]
    points = [(k + 1, float(np.log10(value))) for k, value in enumerate(values)]
    if len(points) > 200:
        points = [points[round(k)] for k in np.linspace(0, len(points) - 1, 200)]
    figure = _figures.line_chart(
        [_figures.Series("", points)],
        description=f"Eigenvalues of {geometry['width']} test features, largest first, on a logarithmic scale.",
        write=lambda power: f"1e{power:g}",
        axis="direction",
    )
    return _section(
        "Spectrum of the features",
        figure,
        f"The variance of the {geometry['width']} features lies in {number(geometry['effective_rank'])} directions "
        f"(effective rank; {geometry['directions_for_95_percent']} hold 95% of it): the steeper the fall, the fewer "
        "features are in use, and if it is steep although you want features for other tasks, try a loss that spreads "
        "them, such as --loss supcon.",
    )


def _collapse(m: Measurements) -> dict[str, Any] | None:
    both = [m.numbers["geometry"][f"neural_collapse_{name}"] for name in ("train", "test")]
    kinds = {
        "variability": "NC1 variability", "norms": "NC2 lengths", "angles": "NC2 angles", "duality": "NC3 duality",
        "disagreement": "NC4 disagreement", "nearest_centre": "wrong centre",
    }  # fmt: skip
    rows = [
        _bars.Bar(f"{kinds[key]}, {name}", value[key] / (1 + value[key]), number(value[key]))
        for key in kinds
        for name, value in zip(("train", "test"), both, strict=True)
        if value.get(key) is not None
    ]
    figure = (
        _bars.bar_chart(rows, description="Measures of neural collapse of training and test images.") if rows else None
    )
    return _section(
        "Neural collapse",
        figure,
        "Each bar is shorter the further the classes have shrunk to points (NC1), the points to a regular simplex "
        "(NC2) and the classifier to those points (NC3, NC4); where the training bars are short and the test bars "
        "long, the network has learnt its images by heart, and stronger augmentation (--augment strong) or more "
        "images help.",
    )


def _trend(m: Measurements) -> dict[str, Any] | None:
    rows = m.numbers["collapse_over_training"]
    if len(rows) < 2:
        return None
    points = [(row["step"], float(np.log10(row["variability"]))) for row in rows if row["variability"]]
    figure = _figures.line_chart(
        [_figures.Series("", points)],
        description="NC1 of the training images at each checkpoint that was kept, on a logarithmic scale.",
        write=lambda power: number(10.0**power, 3),
        axis="step",
    )
    return _section(
        "Neural collapse over training",
        figure,
        f"NC1 of the training images at the {len(rows)} checkpoints that the run kept: if it still falls steeply, "
        "longer training would collapse the classes further, which sharpens a classifier and hurts transfer to other "
        "tasks.",
    )


def _sphere(m: Measurements) -> dict[str, Any] | None:
    geometry = m.numbers["geometry"]
    # Each on a scale of its own: from nothing to what features that know nothing, or are all one, would have.
    most = {"alignment": 2.0, "uniformity": -4.0, "wasserstein_uniformity": 2.0**0.5}
    kinds = {"alignment": "alignment", "uniformity": "uniformity", "wasserstein_uniformity": "Wasserstein uniformity"}
    rows = [
        _bars.Bar(kinds[key], min(1.0, max(0.0, geometry[key] / most[key])), number(geometry[key]))
        for key in kinds
        if geometry[key] is not None
    ]
    figure = _bars.bar_chart(rows, description="Alignment and uniformity of test features.") if rows else None
    return _section(
        "Alignment and uniformity",
        figure,
        "How far apart images of a class lie on the unit sphere (alignment: 0 is together, 2 is anywhere) and how "
        "evenly all of them cover it (uniformity: 0 is one point, -4 is even; Wasserstein uniformity: the distance "
        "from even, which also sees unused directions): features for other tasks want both, and --loss supcon trains "
        "for them.",
    )


def _persistence(m: Measurements) -> dict[str, Any] | None:
    times = m.persistence
    if not len(times):
        return None
    points = [(float(q), float(np.quantile(times, q))) for q in np.linspace(0, 1, 101)]
    figure = _figures.line_chart(
        [_figures.Series("", points)],
        description="Sorted lengths of the edges of the minimum spanning tree of the test features.",
        zero=True,
        axis="share of the edges",
        write_across=lambda share: f"{100 * share:g}%",
    )
    return _section(
        "Clumps, without labels",
        figure,
        f"The edges of the tree that joins all test features, shortest first, over the longest (mean "
        f"{number(m.numbers['separability']['persistence'])}): a flat line that shoots up at the end means separate "
        "clumps, a line that is high throughout means one cloud, for which a loss that pulls classes together "
        "(--loss supcon) is the thing to try.",
    )


def _scores(m: Measurements) -> dict[str, Any] | None:
    scores = m.numbers["separability"]
    rows = [("own classifier", m.numbers["accuracy"])]
    rows += [
        (name, scores[key])
        for name, key in (
            ("nearest neighbours", "knn_accuracy"),
            ("linear probe", "linear_probe_accuracy"),
            ("rotation probe", "rotation_probe_accuracy"),
        )
        if scores[key] is not None
    ]
    figure = _bars.bar_chart(
        [_bars.Bar(name, value, percent(value)) for name, value in rows],
        description="Test accuracy of the classifier and of probes of the frozen features.",
    )
    return _section(
        "What the features know",
        figure,
        "If a probe of the frozen features beats the run's own classifier, the classifier is at fault and should be "
        "trained anew; the rotation probe needs no labels (chance is 25%) and ranks encoders that are trained alike.",
    )


def _overlap(m: Measurements) -> dict[str, Any] | None:
    classes = m.numbers["classes"]
    if not 2 <= len(classes) <= 40:
        return None
    figure = _bars.matrix_chart(
        m.overlap, classes, classes, description="Share of each class among the nearest neighbours of each class.",
        names=("class", "class of its neighbours"),
    )  # fmt: skip
    pairs = m.numbers["separability"]["overlapping_classes"][:2]
    named = " and ".join(f"{a} with {b}" for a, b in (pair["classes"] for pair in pairs))
    most = f", here most of all {named}" if named else ""
    return _section(
        "Which classes run into each other",
        figure,
        f"Dark squares off the diagonal are classes whose features mix{most}: add images that tell them apart, or "
        "make them one class.",
    )


def _layers(m: Measurements) -> dict[str, Any] | None:
    if len(m.blocks) < 2:
        return None
    figure = _bars.matrix_chart(
        m.cka, m.blocks, m.blocks, description="Linear CKA between the blocks of the network.", names=("block", "block")
    )
    return _section(
        "How alike the blocks are",
        figure,
        "Centred kernel alignment between the features after each block: a large dark square of late blocks means "
        "that these hardly change the features any more, and a shallower --backbone would do.",
    )


def _sparsity(m: Measurements) -> dict[str, Any] | None:
    rows = m.numbers["network"]["sparsity"]
    if not rows:
        return None
    shown = rows if len(rows) <= LAYERS else [rows[round(k)] for k in np.linspace(0, len(rows) - 1, LAYERS)]
    bars = [
        _bars.Bar(row["layer"], row["active"], f"{percent(row['active'], 0)}, {percent(row['dead'], 0)} dead")
        for row in shown
    ]
    return _section(
        "Active units",
        _bars.bar_chart(bars, description="Share of active units after each activation, and of units that never fire."),
        "The share of units that fire for an image usually falls with depth and training, which is no harm; units "
        "that never fire (dead) are wasted, and many of them call for a lower --lr or a narrower network.",
    )


def _complexity(m: Measurements) -> dict[str, Any] | None:
    rows = [row for row in m.numbers["network"]["complexity"] if row["channels"] > 1]
    if not rows:
        return None
    shown = rows if len(rows) <= LAYERS else sorted(rows, key=lambda row: row["distinct"] / row["channels"])[:LAYERS]
    bars = [
        _bars.Bar(row["layer"], row["distinct"] / row["channels"], f"{row['distinct']} of {row['channels']}")
        for row in shown
    ]
    return _section(
        "Distinct features of each layer",
        _bars.bar_chart(bars, description="Share of channels that are left when nearly equal ones are merged."),
        "Channels with nearly equal incoming weights do the same: a layer with a short bar is wider than it needs to "
        "be, and repertoire.diagnostics.merge_features makes it narrower without data.",
    )


def _other(m: Measurements) -> list[dict[str, Any] | None]:
    against = m.numbers.get("against")
    if against is None or m.against is None:
        return []
    cka = _bars.matrix_chart(
        m.against, m.blocks, m.other_blocks, description="Linear CKA between the blocks of both runs.",
        names=("this run", "other run"),
    )  # fmt: skip
    rows = [("this run", m.numbers["accuracy"]), ("other run", against["accuracy"])]
    if against["stitching"] is not None:
        stitched = against["stitching"]
        rows += [("own classifier, relative", stitched["own"]), ("on the other, relative", stitched["relative"])]
        if stitched["absolute"] is not None:
            rows.append(("on the other, as it is", stitched["absolute"]))
        rows.append(("chance", stitched["chance"]))
    alike = against["relative"] or {"cosine": None, "jaccard": None}
    return [
        _section(
            "Blocks of both runs",
            cka,
            f"Where the diagonal is dark, both runs compute the same thing at the same depth (last layer: "
            f"{number(against['last_layer_cka'])}); where it pales, they part, and only runs that are alike to the "
            "end can be averaged into a soup.",
        ),
        _section(
            "One run's classifier on the other's features",
            _bars.bar_chart(
                [_bars.Bar(name, value, percent(value)) for name, value in rows],
                description="Accuracy of both runs, and of stitching a classifier of one to the features of the other.",
            ),
            "Relative to the same 300 images both spaces can be compared: if the stitched classifier is nearly as "
            f"good as the own one, the runs have learnt the same (cosine {number(alike['cosine'])}, shared neighbours "
            f"{percent(alike['jaccard'], 0)}), and an ensemble of the two gains little.",
        ),
    ]


def _names(m: Measurements) -> list[str]:
    """What a weak group is called: the commonest of its classes, and what it is mostly taken for."""
    predicted = m.unseen.logits.argmax(1)
    found = []
    for group in m.weak:
        labels = m.unseen.labels[group.members]
        wrong = group.members[predicted[group.members] != labels]
        true = int(np.bincount(labels).argmax())
        taken = int(np.bincount(predicted[wrong]).argmax())
        names = m.numbers["classes"]
        found.append(f"mostly {names[true]}" + (f", taken for {names[taken]}" if taken != true else ""))
    return found


def _picture(images: Any, index: int) -> dict[str, Any]:
    return {
        "uri": _samples.data_uri(images.pixels([index])[0]),
        "pixelated": max(images.size) <= _samples.LOSSLESS,
        "name": _text.label(images.names[index]),
    }


def _doubtful(m: Measurements, which: str) -> dict[str, Any] | None:
    found, images = m.doubtful[which], m.test if which == "test" else m.train
    if not len(found.index):
        return None
    classes = m.numbers["classes"]
    rows = zip(found.index[:SHOWN].tolist(), found.suggested[:SHOWN].tolist(), strict=True)
    told = "by the run's own classifier" if which == "test" else "by their nearest other training images"
    return {
        "title": "Doubtful labels of test images" if which == "test" else "Doubtful labels of training images",
        "sentence": f"{_text.plural(len(found.index), 'image')} whose label is doubted {told}, the most doubtful "
        "first: correct the labels that are wrong, and read the others as images that the model finds hard.",
        "items": [
            {
                "pictures": [_picture(images, i)],
                "text": f"labelled {classes[int(images.labels[i])]}, looks like {classes[k]}",
            }
            for i, k in rows
        ],
    }


def _copies(m: Measurements) -> dict[str, Any] | None:
    if not len(m.copies.index):
        return None
    rows = zip(m.copies.index[:SHOWN].tolist(), m.copies.match[:SHOWN].tolist(), strict=True)
    return {
        "title": "The same picture in test and training set",
        "sentence": f"{_text.plural(len(m.copies.index), 'test image')} with a training image beside it that is "
        "nearly the same: take one of each pair out, or the test accuracy counts what was learnt by heart.",
        "items": [{"pictures": [_picture(m.test, i), _picture(m.train, j)], "text": _pair(m, i, j)} for i, j in rows],
    }


def _pair(m: Measurements, i: int, j: int) -> str:
    a, b = (m.numbers["classes"][int(k)] for k in (m.test.labels[i], m.train.labels[j]))
    return f"both {a}" if a == b else f"test {a}, training {b}"


def _harm(m: Measurements) -> dict[str, Any] | None:
    if not m.harmful:
        return None
    classes = m.numbers["classes"]
    return {
        "title": "Training images that hurt",
        "sentence": "A step of the classifier on one of these raises the loss of the test images, by the labelled "
        "neural tangent kernel of the last layer: look for wrong labels and for images of nothing, and leave those "
        "out.",
        "items": [
            {"pictures": [_picture(m.train, i)], "text": f"labelled {classes[int(m.train.labels[i])]}"}
            for i, _ in m.harmful
        ],
    }

"""Where the model looked, by several explainers, and which of them to believe of this model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from repertoire.errors import RepertoireError
from repertoire.report._device import device_of
from repertoire.report._samples import AT_ONCE

if TYPE_CHECKING:
    from repertoire.data import ImageSet
    from repertoire.explain import Explainer, Judgement
    from repertoire.methods import Classifier

__all__ = ["at_once", "explainers", "quick", "trust"]

MOST = 32
"""Images of the sample."""

FEWEST = 8
"""Images of which a judgement still says something."""

STEPS = 5
WORK = {"cpu": 2.6e11, "cuda": 1e13}
"""Floating-point operations that a report may spend on its judgement: some seconds of a slow processor, or of a GPU."""

PASSES = 4 * (2 * (STEPS - 1) + 9) + 2 * (STEPS - 1) + 3
"""Passes through the network, about, of an image: curves, and three maps, of four explainers; the curves of chance, and
the ends of all curves."""


def at_once(images: ImageSet) -> int:
    """Images that pass through the network together: few photographs."""
    return AT_ONCE if max(images.size) > 64 else MOST


def quick(model: Classifier, images: ImageSet, *, scores: bool = False) -> Classifier:
    """A copy that gives the same scores and maps sooner, in evaluation mode: normalisation folded, channels last.

    Args:
        model: the classifier.
        images: the test images.
        scores: whether scores are all that is wanted, of which the third digit does not count: in bfloat16 then, of
            photographs, where the device has instructions for it.
    """
    from repertoire.backbones import fast_bfloat16, frozen
    from repertoire.methods import Classifier

    side = max(images.size)
    coarse = scores and side > 64 and not model.head.takes_maps and fast_bfloat16(device_of(model))
    backbone = frozen(model.backbone, side, precision="bfloat16" if coarse else "float32")
    return Classifier(model.normalize, backbone, model.head).eval()


def explainers(model: Classifier, images: ImageSet) -> tuple[dict[str, Explainer], dict[str, str]]:
    """The explainers of the report that fit the model, and why the others do not."""
    import torch

    from repertoire import registry
    from repertoire.data import plain
    from repertoire.explain import fitting, usual_explainers

    named = {name: registry.build("explainers", name) for name in usual_explainers(quick=True)}
    return fitting(model, plain(torch.from_numpy(images.pixels([0]))).to(device_of(model)), named)


def trust(model: Classifier, images: ImageSet, chosen: dict[str, Explainer]) -> dict[str, Any]:
    """The table of the judge, or why there is none, and warnings, which hold in either case.

    Args:
        model: the classifier.
        images: the test images.
        chosen: explainers that fit it.
    """
    found = _judgement(model, images, chosen)
    if isinstance(found, str):
        blind = [name for name, explainer in chosen.items() if not explainer.class_dependent]
        return {"rows": [], "why_not": found, "blind": blind, "sentence": "", "warnings": [], "images": 0}
    rows = []
    for row in (*found.rows, found.random):
        means = {what: row.mean(what) for what in ("insertion", "deletion", "randomization", "sensitivity", "energy")}
        interval = row.intervals["faithfulness"]
        rows.append({"name": row.name, "faithfulness": row.mean("faithfulness"), "interval": interval, **means})
    return {
        "rows": rows,
        "why_not": "",
        "blind": [row.name for row in found.rows if not row.class_dependent],
        "sentence": found.sentence(),
        "warnings": found.warnings(),
        "images": found.images,
    }


def _judgement(model: Classifier, images: ImageSet, chosen: dict[str, Explainer]) -> Judgement | str:
    import torch

    from repertoire.data import plain
    from repertoire.explain import judge

    work = WORK.get(device_of(model).type, WORK["cpu"])
    affordable = int(work / (PASSES * max(_work(model, images), 1)))
    count = min(MOST, len(images), affordable)
    if count < min(FEWEST, len(images)) or count < 2:
        return "There are too few test images." if affordable >= FEWEST else "The network is too large for a report."
    # The same images whenever the report is written.
    rows = np.sort(np.random.default_rng(0).permutation(len(images))[:count])
    masks = None if images.masks is None else torch.from_numpy(images.object_masks(rows))
    if masks is not None and not masks.any(2).any(1).all():
        masks = None
    try:
        shown = plain(torch.from_numpy(images.pixels(rows))).to(device_of(model))
        scorer = quick(model, images, scores=True)
        return judge(model, shown, chosen, masks=masks, steps=STEPS, batch_size=at_once(images), scorer=scorer)
    except RepertoireError as error:
        return str(error)


def _work(model: Classifier, images: ImageSet) -> int:
    """Floating-point operations of a pass of one image; counted and not timed, so that a report can be repeated."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from repertoire.data import plain

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(plain(torch.from_numpy(images.pixels([0]))).to(device_of(model)))
    return int(counter.get_total_flops())

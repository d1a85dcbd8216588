"""What the loss looks like about a run's weights, for its diagnosis."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import torch
from markupsafe import Markup

from repertoire import diagnostics
from repertoire.data import ImageSet, plain
from repertoire.report._text import number
from repertoire.train import Run

__all__ = ["landscape_section", "optimisation"]

IMAGES = 128
"""Training images that the loss is averaged over."""

GRID = 13
"""Steps along each direction of the landscape."""

BATCH = 16
"""Images of a batch whose gradient is compared with others."""


def optimisation(run: Run, images: ImageSet) -> tuple[dict[str, Any], diagnostics.Landscape]:
    """Numbers, ready for JSON, and the landscape of the cross-entropy of labelled images, without augmentation."""
    index = np.random.default_rng(0).permutation(len(images))[:IMAGES]
    x = plain(torch.from_numpy(images.pixels(index))).to(run.device)
    y = torch.from_numpy(np.asarray(images.labels)[index]).long().to(run.device)
    model = run.model
    whole = [(x, y)]
    plane = diagnostics.loss_landscape(model, whole, x=GRID)
    parts = [(a, b) for a, b in zip(x.split(BATCH), y.split(BATCH), strict=True)]
    hessian = diagnostics.Hessian(model, parts)
    top = diagnostics.hessian_eigenvalues(hessian, k=min(3, hessian.dimension), iterations=20, tolerance=0.02).values
    trace = diagnostics.hessian_trace(hessian, 9)
    sharp = diagnostics.sharpness(model, whole, steps=3)
    noise = diagnostics.gradient_noise_scale(model, parts).scale if len(parts) > 1 else math.nan
    numbers = {
        "images": len(y),
        "loss": plane.centre,
        "mean_rise_of_the_landscape": plane.rise if math.isfinite(plane.rise) else None,
        "largest_eigenvalues": top.tolist(),
        "trace": trace.value,
        "trace_error": trace.error,
        "sharpness": sharp.rise if math.isfinite(sharp.rise) else None,
        "gradient_noise_scale": noise if math.isfinite(noise) else None,
    }
    return numbers, plane


def landscape_section(numbers: dict[str, Any], plane: diagnostics.Landscape) -> dict[str, Any]:
    """Title, figure and sentence of the landscape."""
    figure = _inline(diagnostics.landscape_svg(plane))
    largest = numbers["largest_eigenvalues"][0]
    stable = f", so that plain gradient descent would be stable up to --lr {number(2 / largest)}" if largest > 0 else ""
    noise = numbers["gradient_noise_scale"]
    worth = (
        "the gradient of these images is nearly all noise, so that larger batches would still pay"
        if noise is None
        else f"batches far above {number(noise)} images (the gradient noise scale) would waste some"
    )
    return {
        "title": "The loss about the weights",
        "figure": figure,
        "sentence": f"The training loss over two random directions as long as the weights, which are in the centre; "
        f"the largest curvature is {number(largest)}{stable}, and {worth}. A narrow pit calls for --rule sam or more "
        "augmentation.",
    }


def _inline(svg: str) -> Markup:
    """An SVG file as a part of a page: without its header, its addresses, and a style that would hold for all of it."""
    for part in (r"^.*?(?=<svg)", r"<metadata>.*?</metadata>", r"<style.*?</style>", r' xmlns(:\w+)?="[^"]*"'):
        svg = re.sub(part, "", svg, flags=re.DOTALL)
    return Markup(svg.replace("<svg ", '<svg role="img" aria-label="Contours of the loss." ', 1))

"""The claim of *Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization* (2016)."""

from __future__ import annotations

import torch
from torch import Tensor

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.mosaics import MOSAICS, mosaics, scores, trained_network
from repertoire.explain import GradCAM
from repertoire.methods import Classifier


def _input_gradient(model: Classifier, images: Tensor, targets: Tensor) -> Tensor:
    """Size of the gradient of the target's score in the input, largest over the channels, `[N, H, W]`."""
    images = images.clone().requires_grad_(True)
    total = model(images).gather(1, targets[:, None]).sum()
    (gradient,) = torch.autograd.grad(total, images)
    return gradient.abs().amax(1)


@claim(
    "grad-cam",
    statement=(
        "Asked for one of the four classes of a mosaic, Grad-CAM puts a larger share of its energy on the quarter of "
        "that class, by 0.05, than the gradient of the input does."
    ),
    metric="share of energy in the right quarter",
    method="Grad-CAM",
    baseline="input gradient",
    data=MOSAICS,
    bed="fashion-mnist",
    threshold=0.05,
    learned=0.1,
    learned_by="best",
    trivial=0.25,
    guard="a blind map, a quarter of whose energy is right; that the input's gradient is hardly better is the claim",
)
def grad_cam(budget: Budget, seed: int) -> Measured:
    """Selvaraju et al., *Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization* (2016).

    The energy decides; how often a map is largest in the right quarter is in `extra`.
    """
    model, images = trained_network(budget, seed)
    found = scores(
        model,
        mosaics(budget, seed, model, images),
        {"Grad-CAM": GradCAM(normalize=False), "input gradient": _input_gradient},
    )
    extra = {f"{name}, pointing game": values["pointing"] for name, values in found.items()}
    return Measured(found["Grad-CAM"]["energy"], found["input gradient"]["energy"], extra)

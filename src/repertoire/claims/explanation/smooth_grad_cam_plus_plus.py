"""The claim of *Smooth Grad-CAM++: An Enhanced Inference Level Visualization Technique for Deep Convolutional Neural
Network Models* (2019).
"""

from __future__ import annotations

import torch
from torch import Tensor

from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import accuracy
from repertoire.claims.beds.drawn_objects import in_pieces, trained_on_shapes
from repertoire.explain import Explainer, GradCAM, GradCAMPlusPlus, SmoothGradCAMPlusPlus, energy_inside, pointing_game


@claim(
    "smooth-grad-cam-plus-plus",
    statement=(
        "At the end of the second stage of a network, Smooth Grad-CAM++ of the true class puts a larger share of its "
        "energy on the object than Grad-CAM or Grad-CAM++, whichever of the two is better."
    ),
    metric="share of energy inside the object's mask",
    method="Smooth Grad-CAM++",
    baseline="Grad-CAM or Grad-CAM++, the better",
    data="shapes: 8 classes, 32 pixels",
    threshold=0.0,
)
def smooth_grad_cam(budget: Budget, seed: int) -> Measured:
    """Omeiza et al., *Smooth Grad-CAM++: An Enhanced Inference Level Visualization Technique for Deep Convolutional
    Neural Network Models* (2019).

    At the second of three stages, since behind the last there are only an average and a linear classifier: the gradient
    there is the same for every image, so that noise changes nothing and the method is Grad-CAM++. (The paper looks at
    the last convolution of a VGG, which fully connected layers follow.) In `extra`: how often maps are largest on the
    object, and the formula as it is printed, with the first derivative in the numerator.
    """
    splits, method = trained_on_shapes(budget, seed)
    explainers: dict[str, Explainer] = {
        "Grad-CAM": GradCAM("stage2"),
        "Grad-CAM++": GradCAMPlusPlus("stage2"),
        "Smooth Grad-CAM++": SmoothGradCAMPlusPlus("stage2", seed=seed),
        "Smooth Grad-CAM++, as printed": SmoothGradCAMPlusPlus("stage2", numerator="first", seed=seed),
    }
    shares, hits = {}, {}
    for name, explainer in explainers.items():
        scores: list[tuple[Tensor, Tensor]] = []
        for images, labels, masks in in_pieces(splits.test, budget.device):
            heat = explainer(method.model, images, labels)
            scores.append((energy_inside(heat, masks), pointing_game(heat, masks)))
        shares[name], hits[name] = (torch.cat(parts).mean().item() for parts in zip(*scores, strict=True))
    baselines = {name: shares[name] for name in ("Grad-CAM", "Grad-CAM++")}
    extra = {
        **baselines,
        "Smooth Grad-CAM++, as printed": shares["Smooth Grad-CAM++, as printed"],
        **{f"{name}, pointing game": hit for name, hit in hits.items()},
        "test accuracy": accuracy(method, splits.test),
    }
    return Measured(shares["Smooth Grad-CAM++"], max(baselines.values()), extra)

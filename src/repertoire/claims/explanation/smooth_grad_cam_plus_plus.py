"""The claim of *Smooth Grad-CAM++: An Enhanced Inference Level Visualization Technique for Deep Convolutional Neural
Network Models* (2019).
"""

from __future__ import annotations

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.mosaics import MOSAICS, mosaics, scores, trained_network
from repertoire.explain import GradCAM, GradCAMPlusPlus, SmoothGradCAMPlusPlus


@claim(
    "smooth-grad-cam-plus-plus",
    statement=(
        "At the last convolution of a network, which fully connected layers follow, asked for one of the four classes "
        "of a mosaic, Smooth Grad-CAM++ puts a larger share of its energy on the quarter of that class, by 0.01, than "
        "Grad-CAM++ does."
    ),
    metric="share of energy in the right quarter",
    method="Smooth Grad-CAM++",
    baseline="Grad-CAM++",
    data=MOSAICS,
    bed="fashion-mnist",
    threshold=0.01,
    learned=0.05,
    trivial=0.25,
    guard="a blind map, a quarter of whose energy is right; the network must beat nearest means and neighbours",
)
def smooth_grad_cam(budget: Budget, seed: int) -> Measured:
    """Omeiza et al., *Smooth Grad-CAM++: An Enhanced Inference Level Visualization Technique for Deep Convolutional
    Neural Network Models* (2019).

    As in the paper, which looks at the last convolution of a VGG, fully connected layers follow: were there only an
    average and a linear classifier, the gradient would be the same for every image, so that noise changed nothing and
    the method were Grad-CAM++. For that reason the second of three stages had been looked at before. There both were
    nearly blind, with 0.27 of their energy on the right quarter, where Grad-CAM had 0.41: both keep of the gradient
    only what is positive, and at a stage whose channels speak for every class, something is positive for any of them.
    In `extra`: Grad-CAM, how often maps are largest in the right quarter, and the formula as it is printed, with the
    first derivative in the numerator.
    """
    model, images = trained_network(budget, seed, connected=True)
    found = scores(
        model,
        mosaics(budget, seed, model, images),
        {
            "Grad-CAM": GradCAM("stage3"),
            "Grad-CAM++": GradCAMPlusPlus("stage3"),
            "Smooth Grad-CAM++": SmoothGradCAMPlusPlus("stage3", seed=seed),
            "Smooth Grad-CAM++, as printed": SmoothGradCAMPlusPlus("stage3", numerator="first", seed=seed),
        },
    )
    extra = {name: found[name]["energy"] for name in ("Grad-CAM", "Smooth Grad-CAM++, as printed")}
    extra |= {f"{name}, pointing game": values["pointing"] for name, values in found.items()}
    return Measured(found["Smooth Grad-CAM++"]["energy"], found["Grad-CAM++"]["energy"], extra)

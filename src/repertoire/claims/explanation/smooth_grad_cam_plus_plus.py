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
        "At the end of the second stage of a network, asked for one of the four classes of a mosaic, Smooth Grad-CAM++ "
        "puts a larger share of its energy on the quarter of that class, by 0.01, than Grad-CAM++ does."
    ),
    metric="share of energy in the right quarter",
    method="Smooth Grad-CAM++",
    baseline="Grad-CAM++",
    data=MOSAICS,
    bed="fashion-mnist",
    threshold=0.01,
)
def smooth_grad_cam(budget: Budget, seed: int) -> Measured:
    """Omeiza et al., *Smooth Grad-CAM++: An Enhanced Inference Level Visualization Technique for Deep Convolutional
    Neural Network Models* (2019).

    At the second of three stages, since behind the last there are only an average and a linear classifier: the gradient
    there is the same for every image, so that noise changes nothing and the method is Grad-CAM++. (The paper looks at
    the last convolution of a VGG, which fully connected layers follow.) In `extra`: Grad-CAM, how often maps are
    largest in the right quarter, and the formula as it is printed, with the first derivative in the numerator. A blind
    map has a quarter of its energy there: both that are compared know little at this stage, and Grad-CAM knows more.
    """
    model, images = trained_network(budget, seed)
    found = scores(
        model,
        mosaics(budget, seed, model, images),
        {
            "Grad-CAM": GradCAM("stage2"),
            "Grad-CAM++": GradCAMPlusPlus("stage2"),
            "Smooth Grad-CAM++": SmoothGradCAMPlusPlus("stage2", seed=seed),
            "Smooth Grad-CAM++, as printed": SmoothGradCAMPlusPlus("stage2", numerator="first", seed=seed),
        },
    )
    extra = {name: found[name]["energy"] for name in ("Grad-CAM", "Smooth Grad-CAM++, as printed")}
    extra |= {f"{name}, pointing game": values["pointing"] for name, values in found.items()}
    return Measured(found["Smooth Grad-CAM++"]["energy"], found["Grad-CAM++"]["energy"], extra)

"""The claim of *Eigen-CAM: Class Activation Map using Principal Components* (2020)."""

from __future__ import annotations

import torch

from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import accuracy, train
from repertoire.claims.beds.drawn_objects import in_pieces, mean_scores, sensitivity_of
from repertoire.claims.beds.learned import must_have_learned
from repertoire.claims.beds.pasted import PASTED, constant_map, pasted
from repertoire.claims.beds.raw import raw_accuracy
from repertoire.data import Splits
from repertoire.explain import EigenCAM, GradCAM, mask_intersection, pointing_game


def _shown(budget: Budget, seed: int) -> Splits:
    return pasted(budget, seed, budget.pick(smoke=100, small=2000, full=9000))


def blind_map(budget: Budget, seed: int) -> float:
    """The overlap of a map that looks at no image."""
    return constant_map(_shown(budget, seed))


@claim(
    "eigen-cam",
    statement=(
        "The hottest part of an Eigen-CAM covers the object better, by 0.01 in intersection over union, than that of "
        "Grad-CAM of the true class."
    ),
    metric="intersection over union of the object and as many of the hottest pixels",
    method="Eigen-CAM",
    baseline="Grad-CAM",
    data=PASTED,
    tier="real, small",
    threshold=0.01,
    learned=0.02,
    floor=blind_map,
    guard="the mean mask of the training images as the map of all; the network must beat nearest means and neighbours",
)
def eigen_cam(budget: Budget, seed: int) -> Measured:
    """Muhammad and Yeasin, *Eigen-CAM: Class Activation Map using Principal Components* (2020).

    In `extra`: both on the images that the network gets wrong (of which the paper says that Eigen-CAM is the surer),
    the pointing game, and how much the maps of the most and the least likely class are alike: those of Eigen-CAM are
    the same, so they give no reason for a class.
    """
    splits = _shown(budget, seed)
    method = train(
        splits,
        backbone=budget.pick(smoke="resnet20:width=4", small="resnet20:width=8", full="resnet32"),
        augment="crop-flip",
        batch_size=64,
        epochs=budget.pick(smoke=1, small=10, full=60),
        seed=seed,
        device=budget.device,
    )
    right = accuracy(method, splits.test)
    must_have_learned(budget, right, raw_accuracy(splits))
    pieces = in_pieces(splits.test, budget.device)
    explainers = {"Eigen-CAM": EigenCAM(), "Grad-CAM": GradCAM(), "Eigen-CAM, centred": EigenCAM(centre=True)}
    covers = mean_scores(explainers, method, pieces, mask_intersection)
    extra = {"Eigen-CAM, centred": covers.pop("Eigen-CAM, centred")}
    extra |= {
        f"{name}, pointing game": hit for name, hit in mean_scores(explainers, method, pieces, pointing_game).items()
    }
    wrong = []
    for images, labels, masks in pieces:
        with torch.no_grad():
            mistaken = method.model(images).argmax(1) != labels
        if mistaken.any():
            wrong.append((images[mistaken], labels[mistaken], masks[mistaken]))
    if wrong:
        extra |= {
            f"{name}, mistaken images": cover
            for name, cover in mean_scores(explainers, method, wrong, mask_intersection).items()
        }
    few = pieces[0][0][: budget.pick(smoke=4, small=128, full=256)]
    for name in ("Eigen-CAM", "Grad-CAM"):
        extra[f"{name}, likeness of classes"] = sensitivity_of(explainers[name], method, few)
    return Measured(covers["Eigen-CAM"], covers["Grad-CAM"], {**extra, "test accuracy": right})

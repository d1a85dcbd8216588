"""Claims of papers on class activation maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import accuracy, train
from repertoire.data import Splits, load, plain
from repertoire.explain import (
    EigenCAM,
    Explainer,
    GradCAM,
    GradCAMPlusPlus,
    NormGrad,
    SmoothGradCAMPlusPlus,
    class_sensitivity,
    energy_inside,
    mask_intersection,
    pointing_game,
)
from repertoire.methods import Method

Score = Callable[[Tensor, Tensor], Tensor]


def _trained(budget: Budget, seed: int) -> tuple[Splits, Method]:
    """Shapes with their exact masks, and a small residual network that tells them apart."""
    count = budget.pick(smoke=300, small=2000, full=50_000)
    splits = load(f"shapes:count={count},classes=8", size=32, seed=seed)
    method = train(
        splits,
        backbone=budget.pick(smoke="resnet20:width=4", small="resnet20:width=8", full="resnet32"),
        augment="crop-flip",
        epochs=budget.pick(smoke=1, small=8, full=60),
        seed=seed,
        device=budget.device,
    )
    return splits, method


def _pieces(splits: Splits, device: str) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Test images in [0, 1], their classes and the masks of their objects, piece by piece."""
    pieces = []
    for start in range(0, len(splits.test), 256):
        rows = range(start, min(start + 256, len(splits.test)))
        arrays = (splits.test.pixels(rows), splits.test.labels[rows], splits.test.object_masks(rows))
        pixels, labels, masks = (torch.from_numpy(array).to(device) for array in arrays)
        pieces.append((plain(pixels), labels, masks))
    return pieces


def _means(
    explainers: Mapping[str, Explainer], method: Method, pieces: list[tuple[Tensor, Tensor, Tensor]], score: Score
) -> dict[str, float]:
    """The mean over the images of the score of each explainer's map of the true class."""
    found: dict[str, list[Tensor]] = {name: [] for name in explainers}
    for images, labels, masks in pieces:
        for name, explainer in explainers.items():
            found[name].append(score(explainer(method.model, images, labels), masks))
    return {name: torch.cat(parts).mean().item() for name, parts in found.items()}


def _sensitivity(explainer: Explainer, method: Method, images: Tensor) -> float:
    """How much maps of the most and the least likely class are alike: the mean correlation."""
    return class_sensitivity(explainer, method.model, images).nanmean().item()


@claim(
    "normgrad",
    statement=(
        "At the end of the first stage of a network, NormGrad of the true class is largest on the object more often "
        "than Grad-CAM at the same layer."
    ),
    metric="pointing game",
    method="NormGrad at the first stage",
    baseline="Grad-CAM at the first stage",
    data="shapes: 8 classes, 32 pixels",
    threshold=0.0,
)
def normgrad(budget: Budget, seed: int) -> Measured:
    """Rebuffi et al., *There and Back Again: Revisiting Backpropagation Saliency Methods* (2020).

    In `extra`: both at the later stages, NormGrad of all three stages, and how much the maps of the most and the least
    likely class are alike, without and with a step of training before, which the paper says makes them less so.
    """
    splits, method = _trained(budget, seed)
    pieces = _pieces(splits, budget.device)
    explainers: dict[str, Explainer] = {}
    for stage in ("stage1", "stage2", "stage3"):
        explainers[f"NormGrad, {stage}"] = NormGrad(stage)
        explainers[f"Grad-CAM, {stage}"] = GradCAM(stage)
    explainers["NormGrad, all stages"] = NormGrad(["stage1", "stage2", "stage3"])
    hits = _means(explainers, method, pieces, pointing_game)
    few = pieces[0][0][: budget.pick(smoke=4, small=64, full=256)]
    alike = {
        "likeness of classes": _sensitivity(NormGrad("stage3"), method, few),
        "likeness of classes, after a step": _sensitivity(NormGrad("stage3", step=0.01), method, few),
        "likeness of classes, Grad-CAM": _sensitivity(GradCAM("stage3"), method, few),
    }
    ours, plain_cam = hits.pop("NormGrad, stage1"), hits.pop("Grad-CAM, stage1")
    return Measured(ours, plain_cam, {**hits, **alike, "test accuracy": accuracy(method, splits.test)})


@claim(
    "eigen-cam",
    statement="The hottest part of an Eigen-CAM covers the object better than that of Grad-CAM of the true class.",
    metric="intersection over union of the object and as many of the hottest pixels",
    method="Eigen-CAM",
    baseline="Grad-CAM",
    data="shapes: 8 classes, 32 pixels",
    threshold=0.0,
)
def eigen_cam(budget: Budget, seed: int) -> Measured:
    """Muhammad and Yeasin, *Eigen-CAM: Class Activation Map using Principal Components* (2020).

    In `extra`: both on the images that the network gets wrong (of which the paper says that Eigen-CAM is the surer),
    the pointing game, and how much the maps of the most and the least likely class are alike: those of Eigen-CAM are
    the same, so they give no reason for a class.
    """
    splits, method = _trained(budget, seed)
    pieces = _pieces(splits, budget.device)
    explainers = {"Eigen-CAM": EigenCAM(), "Grad-CAM": GradCAM(), "Eigen-CAM, centred": EigenCAM(centre=True)}
    covers = _means(explainers, method, pieces, mask_intersection)
    extra = {"Eigen-CAM, centred": covers.pop("Eigen-CAM, centred")}
    extra |= {f"{name}, pointing game": hit for name, hit in _means(explainers, method, pieces, pointing_game).items()}
    wrong = []
    for images, labels, masks in pieces:
        with torch.no_grad():
            mistaken = method.model(images).argmax(1) != labels
        if mistaken.any():
            wrong.append((images[mistaken], labels[mistaken], masks[mistaken]))
    if wrong:
        extra |= {
            f"{name}, mistaken images": cover
            for name, cover in _means(explainers, method, wrong, mask_intersection).items()
        }
    few = pieces[0][0][: budget.pick(smoke=4, small=128, full=256)]
    for name in ("Eigen-CAM", "Grad-CAM"):
        extra[f"{name}, likeness of classes"] = _sensitivity(explainers[name], method, few)
    return Measured(covers["Eigen-CAM"], covers["Grad-CAM"], {**extra, "test accuracy": accuracy(method, splits.test)})


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
    splits, method = _trained(budget, seed)
    explainers: dict[str, Explainer] = {
        "Grad-CAM": GradCAM("stage2"),
        "Grad-CAM++": GradCAMPlusPlus("stage2"),
        "Smooth Grad-CAM++": SmoothGradCAMPlusPlus("stage2", seed=seed),
        "Smooth Grad-CAM++, as printed": SmoothGradCAMPlusPlus("stage2", numerator="first", seed=seed),
    }
    shares, hits = {}, {}
    for name, explainer in explainers.items():
        scores: list[tuple[Tensor, Tensor]] = []
        for images, labels, masks in _pieces(splits, budget.device):
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

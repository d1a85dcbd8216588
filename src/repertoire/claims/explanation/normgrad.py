"""The claim of *There and Back Again: Revisiting Backpropagation Saliency Methods* (2020)."""

from __future__ import annotations

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.mosaics import MOSAICS, Map, mosaics, scores, trained_network
from repertoire.explain import GradCAM, NormGrad, class_sensitivity


@claim(
    "normgrad",
    statement=(
        "At the end of the first stage of a network, NormGrad of one of the four classes of a mosaic is largest in the "
        "quarter of that class more often, by five percentage points, than Grad-CAM at the same layer."
    ),
    metric="share of maps that are largest in the right quarter",
    method="NormGrad at the first stage",
    baseline="Grad-CAM at the first stage",
    data=MOSAICS,
    bed="fashion-mnist",
    threshold=0.05,
    learned=0.05,
    trivial=0.25,
    guard="a blind map, which is largest in the right quarter of a mosaic by chance",
)
def normgrad(budget: Budget, seed: int) -> Measured:
    """Rebuffi et al., *There and Back Again: Revisiting Backpropagation Saliency Methods* (2020).

    In `extra`: both at the later stages, NormGrad of all three stages, and how much the maps of the most and the least
    likely class are alike, without and with a step of training before, which the paper says makes them less so. Right
    before the average over places, the maps of two classes differ by a factor alone, and their likeness is 1. A map
    that knows nothing is right in a quarter of the images.
    """
    model, images = trained_network(budget, seed)
    shown = mosaics(budget, seed, model, images)
    explainers: dict[str, Map] = {}
    for stage in ("stage1", "stage2", "stage3"):
        explainers[f"NormGrad, {stage}"] = NormGrad(stage)
        explainers[f"Grad-CAM, {stage}"] = GradCAM(stage)
    explainers["NormGrad, all stages"] = NormGrad(["stage1", "stage2", "stage3"])
    hits = {name: values["pointing"] for name, values in scores(model, shown, explainers).items()}
    few = shown.images[: budget.pick(smoke=4, small=64, full=256)]
    alike = {
        f"likeness of classes{words}": class_sensitivity(explainer, model, few).nanmean().item()
        for words, explainer in (
            ("", NormGrad("stage3")),
            (", after a step", NormGrad("stage3", step=0.01)),
            (", Grad-CAM", GradCAM("stage3")),
        )
    }
    ours, plain_cam = hits.pop("NormGrad, stage1"), hits.pop("Grad-CAM, stage1")
    return Measured(ours, plain_cam, {**hits, **alike})

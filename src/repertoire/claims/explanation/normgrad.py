"""The claim of *There and Back Again: Revisiting Backpropagation Saliency Methods* (2020)."""

from __future__ import annotations

from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import accuracy
from repertoire.claims.beds.drawn_objects import in_pieces, mean_scores, sensitivity_of, trained_on_shapes
from repertoire.explain import Explainer, GradCAM, NormGrad, pointing_game


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
    splits, method = trained_on_shapes(budget, seed)
    pieces = in_pieces(splits.test, budget.device)
    explainers: dict[str, Explainer] = {}
    for stage in ("stage1", "stage2", "stage3"):
        explainers[f"NormGrad, {stage}"] = NormGrad(stage)
        explainers[f"Grad-CAM, {stage}"] = GradCAM(stage)
    explainers["NormGrad, all stages"] = NormGrad(["stage1", "stage2", "stage3"])
    hits = mean_scores(explainers, method, pieces, pointing_game)
    few = pieces[0][0][: budget.pick(smoke=4, small=64, full=256)]
    alike = {
        "likeness of classes": sensitivity_of(NormGrad("stage3"), method, few),
        "likeness of classes, after a step": sensitivity_of(NormGrad("stage3", step=0.01), method, few),
        "likeness of classes, Grad-CAM": sensitivity_of(GradCAM("stage3"), method, few),
    }
    ours, plain_cam = hits.pop("NormGrad, stage1"), hits.pop("Grad-CAM, stage1")
    return Measured(ours, plain_cam, {**hits, **alike, "test accuracy": accuracy(method, splits.test)})

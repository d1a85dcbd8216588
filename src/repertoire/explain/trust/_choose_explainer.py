"""Choice of the explainer that is nearest to the network where you will use it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from repertoire import registry
from repertoire.errors import ConfigError
from repertoire.explain.attribution._local_approximation import LocalApproximation

__all__ = ["ExplainerChoice", "choose_explainer"]

#: The eight explainers of the paper, as the registry names them.
EIGHT = (
    "lime", "c-lime", "kernel-shap", "occlusion",
    "gradient", "gradient-x-input", "smooth-grad", "integrated-gradients",
)  # fmt: skip


@dataclass(frozen=True)
class ExplainerChoice:
    """Result of :func:`~repertoire.explain.choose_explainer`.

    Attributes:
        best: the name of the explainer to choose.
        errors: of each explainer, least first: its squared error over that of a function that is constant. 0 is the
            network itself, 1 is no better than to say nothing, and more is misleading.
    """

    best: str
    errors: dict[str, float]


def choose_explainer(
    model: nn.Module,
    inputs: Tensor,
    neighbourhood: LocalApproximation | str,
    explainers: Mapping[str, LocalApproximation] | None = None,
    targets: Tensor | int | None = None,
    *,
    seed: int = 1,
) -> ExplainerChoice:
    """The explainer that is most faithful to a network in a neighbourhood, by the rule that no one is best in all.

    Han, Srinivas and Lakkaraju, *Which Explanation Should I Choose? A Function Approximation Perspective to
    Characterizing Post Hoc Explanations* (2022): say first where the explanation will be used and what it has to get
    right there, values or gradients, and choose the explainer whose linear function errs least. A neighbourhood goes by
    the name of the explainer that is at home there: `"occlusion"` if the question is what happens when one feature goes
    missing, `"kernel-shap"` for any subset of them, `CLIME(sigma=0.1)` for small changes of all, `"smooth-grad"` for
    how steep the score is there. The points are drawn afresh, so that an explainer with too few samples does not win
    at home.

    As functions, the gradient and gradient times input are the same, and err by the same. Maps of explainers that are
    no linear functions (Grad-CAM) cannot be measured like this.

    Args:
        model: inputs to scores.
        inputs: what will be explained, or a sample of it: images `[N, C, H, W]` or features `[N, D]`, N at least 1.
        neighbourhood: where and in what an explanation has to be right.
        explainers: by name; the eight of the paper by default, with their defaults but the baseline of `neighbourhood`.
        targets: the classes to explain, int64 `[N]`, one for all, or several for each, `[N, K]`; by default the
            predicted ones.
        seed: of the points at which errors are measured.

    Raises:
        ConfigError: an explainer that is not a local approximation; no explainers.
        ShapeError: inputs, scores or targets that do not fit, or no inputs.
        UnknownName: no explainer of that name.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from repertoire.explain import choose_explainer
        >>> torch.manual_seed(0)  # doctest: +ELLIPSIS
        <...>
        >>> net = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 2))
        >>> choose_explainer(net, 2 * torch.randn(8, 4), "occlusion").best
        'occlusion'
    """
    place = registry.build("explainers", neighbourhood) if isinstance(neighbourhood, str) else neighbourhood
    if explainers is None:
        explainers = {name: _with_baseline_of(place, registry.build("explainers", name)) for name in EIGHT}
    if not explainers:
        raise ConfigError("explainers is empty; there is nothing to choose from")
    for name, explainer in {"neighbourhood": place, **explainers}.items():
        if not isinstance(explainer, LocalApproximation):
            raise ConfigError(
                f"{name} is a {type(explainer).__name__}, which is no linear function near the input; only the "
                "explainers that are local approximations can be compared like this"
            )
    measured = copy.copy(place)
    measured.seed = seed
    slopes = torch.stack([explainer.slopes(model, inputs, targets) for explainer in explainers.values()])
    errors, constant = measured.errors(model, inputs, slopes, targets)
    total = constant.sum().clamp_min(torch.finfo(constant.dtype).tiny)
    shares = {name: float(error.sum() / total) for name, error in zip(explainers, errors, strict=True)}
    ordered = dict(sorted(shares.items(), key=lambda item: item[1]))
    return ExplainerChoice(next(iter(ordered)), ordered)


def _with_baseline_of(place: object, explainer: LocalApproximation) -> LocalApproximation:
    explainer.baseline = getattr(place, "baseline", 0.0)
    return explainer

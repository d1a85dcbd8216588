"""Sanity checks of explanations: do maps depend on what the network learned, and on the class?"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from repertoire.errors import ConfigError, ShapeError
from repertoire.explain._arguments import at_least
from repertoire.explain._explainer import Explainer, every_row, find_scores, moved, undisturbed
from repertoire.explain.trust._curves import probabilities
from repertoire.explain.trust._similarity import map_correlation, rank_correlation, structural_similarity

__all__ = [
    "Randomization",
    "class_sensitivity",
    "explained_class",
    "extreme_classes",
    "max_sensitivity",
    "randomization_check",
    "randomize",
    "randomized",
]


class Randomization(NamedTuple):
    """Result of :func:`~repertoire.explain.randomization_check`, a row for each step.

    Attributes:
        layers: what was randomised last, L names.
        rank_correlation: of the maps with those of the trained network, `[L, N]`.
        similarity: their structural similarity, `[L, N]`.
    """

    layers: tuple[str, ...]
    rank_correlation: Tensor
    similarity: Tensor


def randomization_check(
    explainer: Explainer,
    model: nn.Module,
    images: Tensor,
    targets: Tensor | int | None = None,
    *,
    mode: Literal["cascade", "independent", "all"] = "cascade",
    seed: int = 0,
) -> Randomization:
    """Measures how much of a map is left when the network's weights are made random, layer by layer.

    Adebayo, Gilmer, Muelly, Goodfellow, Hardt and Kim, *Sanity Checks for Saliency Maps* (2018). An explainer whose
    maps stay what they were shows the image, and not what the network learned. Layers are randomised as
    :func:`~repertoire.explain.randomized` does, in a copy: the model stays as it is.

    Args:
        explainer: makes the maps.
        model: images to scores `[N, C]`.
        images: float `[N, C, H, W]`.
        targets: the classes to explain, int64 `[N]`, or one for all; by default those that the trained model predicts,
            also for the copies.
        mode: "cascade" randomises from the last layer that runs to the first, one more at each step; "independent" one
            at a time, the others as they were trained; "all" the whole network in one step.
        seed: of the random weights.

    Returns:
        Names of layers, rank correlations and structural similarities; the closer to zero the better.

    Raises:
        ConfigError: no such mode, or a model without weights.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from repertoire.explain import GradCAM, randomization_check
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        >>> found = randomization_check(GradCAM(), net, torch.rand(2, 3, 16, 16))
        >>> found.layers, found.rank_correlation.shape
        (('4', '0'), torch.Size([2, 2]))
    """
    if mode not in ("cascade", "independent", "all"):
        raise ConfigError(f"mode must be cascade, independent or all, found {mode!r}")
    model = getattr(model, "_orig_mod", model)
    targets = explained_class(model, images, targets, explainer)
    trained = explainer(model, images, targets)
    names = _in_order(model, images)[::-1]
    if not names:
        raise ConfigError(f"the {type(model).__name__} has no weights to randomise")
    ranks, similarities = [], []
    for copied, own in _copies(model, explainer, names, mode, seed):
        maps = own(copied, images, targets)
        ranks.append(rank_correlation(trained, maps))
        similarities.append(structural_similarity(trained, maps))
    return Randomization(
        ("all",) if mode == "all" else tuple(name or type(model).__name__ for name in names),
        torch.stack(ranks),
        torch.stack(similarities),
    )


def randomized(model: nn.Module, *, seed: int = 0) -> nn.Module:
    """A copy of a model with random weights; the model stays as it is.

    A module that can draw its weights anew (`reset_parameters`) does so, which takes the statistics of normalisation
    with it; the weights of others are shuffled, each tensor within itself.

    Args:
        model: of which to make a copy.
        seed: of the random weights; torch's random state stays as it is.

    Example:
        >>> import torch
        >>> from repertoire.explain import randomized
        >>> net = torch.nn.Linear(2, 2)
        >>> bool((randomized(net).weight == net.weight).any())
        False
    """
    copied = copy.deepcopy(getattr(model, "_orig_mod", model))
    randomize(copied.modules(), seed)
    return copied


def class_sensitivity(explainer: Explainer, model: nn.Module, images: Tensor) -> Tensor:
    """Correlation of the map of the most likely class with that of the least likely one.

    Rebuffi, Fong, Ji and Vedaldi, *There and Back Again: Revisiting Backpropagation Saliency Methods* (2020). The map
    of a cat should not be the same as that of a lorry in the same image: 1 means that it is, and that the explainer
    does not answer the question for the class.

    Args:
        explainer: makes the maps.
        model: images to scores `[N, C]`, C at least 2.
        images: float `[N, C, H, W]`.

    Returns:
        Pearson's correlation, `[N]` in [-1, 1].

    Raises:
        ShapeError: a model with one class.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from repertoire.explain import GradCAM, class_sensitivity
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        >>> class_sensitivity(GradCAM(), net, torch.rand(2, 3, 16, 16)).shape
        torch.Size([2])
    """
    both = extreme_classes(model, images, explainer)
    most, least = explainer(model, images, both).unbind(1)
    return map_correlation(most, least)


def max_sensitivity(
    explainer: Explainer,
    model: nn.Module,
    images: Tensor,
    targets: Tensor | int | None = None,
    *,
    radius: float = 0.02,
    samples: int = 10,
    seed: int = 0,
) -> Tensor:
    r"""Measures how far a map moves when its image hardly does; lower is steadier.

    Yeh, Hsieh, Suggala, Inouye and Ravikumar, *On the (In)fidelity and Sensitivity of Explanations* (2019), over S
    random changes, relative to the size of the map as is usual:

    .. math:: \max_{s} \frac{\lVert \Phi(x + \delta_s) - \Phi(x) \rVert}{\lVert \Phi(x) \rVert},
        \qquad \lVert \delta_s \rVert_\infty \le r

    Their infidelity is :meth:`LocalApproximation.errors <repertoire.explain.LocalApproximation.errors>` of values, with
    a neighbourhood of your choice.

    Args:
        explainer: makes the maps.
        model: images to scores `[N, C]`.
        images: float `[N, C, H, W]`.
        targets: the classes to explain, int64 `[N]`, or one for all; by default those predicted of the images
            themselves, also for the changed ones.
        radius: r, the largest change of a value, positive; in the units of the images.
        samples: S, at least 1; shared by the images.
        seed: of the changes.

    Returns:
        `[N]`, 0 or more; infinite where a map is zero and does not stay so.

    Raises:
        ConfigError: radius or samples out of range.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from repertoire.explain import GradCAM, max_sensitivity
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        >>> max_sensitivity(GradCAM(), net, torch.rand(2, 3, 16, 16), samples=3).shape
        torch.Size([2])
    """
    at_least(1, samples=samples)
    if not 0 < radius < float("inf"):
        raise ConfigError(f"radius must be positive, found {radius}")
    targets = explained_class(model, images, targets, explainer)
    before = explainer(model, images, targets).flatten(1)
    size, generator = before.norm(dim=1), torch.Generator().manual_seed(seed)
    largest = torch.zeros_like(size)
    for _ in range(samples):
        change = radius * (2 * torch.rand(images.shape[1:], generator=generator) - 1)
        moved_away = explainer(model, images + change.to(images), targets).flatten(1)
        largest = torch.maximum(largest, (moved_away - before).norm(dim=1))
    return torch.where(largest > 0, largest / size, largest)


def extreme_classes(model: nn.Module, images: Tensor, explainer: Explainer | None = None) -> Tensor:
    """The most and the least likely class of each image, int64 `[N, 2]`."""
    model = getattr(model, "_orig_mod", model)
    with undisturbed(model):
        inputs = moved(model, images)
        if not len(inputs):
            return torch.zeros(0, 2, dtype=torch.int64, device=inputs.device)
        scores = find_scores(model, model(inputs), every_row(inputs), getattr(explainer, "output", None))
    if scores.shape[1] < 2:
        raise ShapeError("a model with one class has no other to compare its maps with")
    return torch.stack([scores.argmax(1), scores.argmin(1)], 1)


def explained_class(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | int | None,
    explainer: Explainer | None = None,
    batch_size: int = 128,
) -> Tensor:
    """The class of each image that is explained, int64 `[N]`: the predicted one, if none is said.

    Raises:
        ShapeError: targets that are not one class of the model for each image.
    """
    if isinstance(targets, Tensor) and targets.shape != (len(images),):
        raise ShapeError(f"targets must be int64 [{len(images)}], one class an image, found {list(targets.shape)}")
    model = getattr(model, "_orig_mod", model)
    with undisturbed(model):
        return probabilities(
            model, moved(model, images), targets, batch_size, output=getattr(explainer, "output", None)
        )[1]


def _copies(
    model: nn.Module, explainer: Explainer, names: list[str], mode: str, seed: int
) -> Iterator[tuple[nn.Module, Explainer]]:
    """Copies of model and explainer, ever more random, or each in another layer.

    Copied together: an explainer may hold the module that it looks at."""
    fresh = None
    for number, name in enumerate(names):
        if fresh is None or mode == "independent":
            fresh = copy.deepcopy((model, explainer))
        randomize([fresh[0].get_submodule(name)], seed + number)
        if mode != "all":
            yield fresh
    if mode == "all" and fresh is not None:
        yield fresh


def _in_order(model: nn.Module, images: Tensor) -> list[str]:
    """The modules with weights of their own, in the order in which they run; first those that do not run as such."""
    ran: dict[nn.Module, None] = {}

    def note(module: nn.Module, _: Any) -> None:
        ran.setdefault(module)

    owners = {module: name for name, module in model.named_modules() if list(module.parameters(recurse=False))}
    handles = [module.register_forward_pre_hook(note) for module in owners]
    try:
        with undisturbed(model):
            model(moved(model, images[:1]))
    finally:
        for handle in handles:
            handle.remove()
    return [name for module, name in owners.items() if module not in ran] + [owners[module] for module in ran]


def randomize(modules: Iterable[nn.Module], seed: int) -> None:
    """Makes the weights of modules random, each of its own only, in place; see `randomized`."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        for module in modules:
            own = list(module.parameters(recurse=False))
            reset = getattr(module, "reset_parameters", None)
            if own and callable(reset):
                reset()
                continue
            for parameter in own:
                order = torch.randperm(parameter.numel()).to(parameter.device)
                parameter.copy_(parameter.flatten()[order].view_as(parameter))

"""Insertion and deletion curves: the score of a class as pixels appear or vanish, the hottest first."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.errors import ConfigError, ShapeError
from repertoire.explain._explainer import check_finite, classes, every_row, find_scores, moved, undisturbed

__all__ = ["Baseline", "area_under_curve", "deletion_curve", "fade", "insertion_curve", "pixel_ranks", "probabilities"]

#: What a pixel becomes when it is taken away: a name, or images to take it from.
Baseline = Literal["blur", "mean", "grey"] | Tensor


def insertion_curve(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    targets: Tensor | int | None = None,
    *,
    steps: int = 32,
    baseline: Baseline = "blur",
    batch_size: int = 128,
    output: Callable[..., Tensor] | None = None,
) -> Tensor:
    r"""Probability of a class while an image appears, the hottest pixels of its map first.

    Petsiuk, Das and Saenko, *RISE: Randomized Input Sampling for Explanation of Black-box Models* (2018). With
    :math:`M_s` the s/S of the pixels that are hottest, x the image, b its baseline and p the softmax of the scores:

    .. math:: y_s = p_c \big( M_s \odot x + (1 - M_s) \odot b \big), \qquad s = 0 \dots S

    The sooner the curve rises, the better the map knows what the network needs; see
    :func:`~repertoire.explain.area_under_curve`. Pixels of the same heat come in an order that is random, the same for
    all images. Each map is sorted once, and memory is that of one batch, however many images and steps there are.

    Args:
        model: images to scores `[N, C]`; runs in evaluation mode and is left as it was.
        images: float `[N, C, H, W]`.
        maps: float `[N, H, W]`, on any scale.
        targets: the class of each image, int64 `[N]`, or one for all; by default the predicted one.
        steps: S, at least 1; the network runs S + 1 times an image.
        baseline: what stands in for a pixel that is not there: "blur" (the default, as the authors have it for
            insertion), a Gaussian of a sixteenth of the longer side; "mean", the image's mean colour; "grey", 0.5; or
            images of one's own, of a shape that broadcasts to that of `images`.
        batch_size: images in a pass through the network.
        output: what to take as the scores of what the model returns; see
            :meth:`Explainer.scores <repertoire.explain.Explainer.scores>`.

    Returns:
        `[N, steps + 1]`, probabilities.

    Raises:
        ShapeError: maps, targets or baseline that do not fit the images.
        ConfigError: no such baseline, or `steps` or `batch_size` below 1.
        DataError: maps or scores that are not finite.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from repertoire.explain import area_under_curve, insertion_curve
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
        >>> images, maps = torch.rand(2, 1, 8, 8), torch.rand(2, 8, 8)
        >>> curve = insertion_curve(model, images, maps, steps=4)
        >>> curve.shape, area_under_curve(curve).shape
        (torch.Size([2, 5]), torch.Size([2]))
    """
    return _curve(model, images, maps, targets, steps, baseline, batch_size, output, insert=True)


def deletion_curve(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    targets: Tensor | int | None = None,
    *,
    steps: int = 32,
    baseline: Baseline = "mean",
    batch_size: int = 128,
    output: Callable[..., Tensor] | None = None,
) -> Tensor:
    r"""Probability of a class while an image vanishes, the hottest pixels of its map first.

    The opposite of :func:`~repertoire.explain.insertion_curve`, which gives the paper, the arguments and what is
    returned:

    .. math:: y_s = p_c \big( M_s \odot b + (1 - M_s) \odot x \big), \qquad s = 0 \dots S

    The sooner it falls, the better the map. By default a pixel becomes the image's mean colour (the authors: that of
    the training images).

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from repertoire.explain import deletion_curve
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
        >>> deletion_curve(model, torch.rand(2, 1, 8, 8), torch.rand(2, 8, 8), steps=4).shape
        torch.Size([2, 5])
    """
    return _curve(model, images, maps, targets, steps, baseline, batch_size, output, insert=False)


def area_under_curve(curve: Tensor) -> Tensor:
    """The area under curves `[N, S + 1]` over the unit interval, by the trapezoidal rule, `[N]`.

    Raises:
        ShapeError: a curve needs two points.

    Example:
        >>> import torch
        >>> from repertoire.explain import area_under_curve
        >>> area_under_curve(torch.tensor([[0.0, 0.5, 1.0]]))
        tensor([0.5000])
    """
    if curve.ndim != 2 or curve.shape[1] < 2:
        raise ShapeError(f"curve must be [N, S + 1] with S at least 1, found {list(curve.shape)}")
    return (curve[:, 1:-1].sum(1) + 0.5 * (curve[:, 0] + curve[:, -1])) / (curve.shape[1] - 1)


def _curve(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    targets: Tensor | int | None,
    steps: int,
    baseline: Baseline,
    batch_size: int,
    output: Callable[..., Tensor] | None,
    *,
    insert: bool,
) -> Tensor:
    for name, value in (("steps", steps), ("batch_size", batch_size)):
        if value < 1:
            raise ConfigError(f"{name} must be at least 1, found {value}")
    if maps.shape != (len(images), *images.shape[2:]):
        raise ShapeError(f"maps must be {[len(images), *images.shape[2:]]} like the images, found {list(maps.shape)}")
    check_finite(maps.flatten(1).isfinite().all(1), "the map")
    model = getattr(model, "_orig_mod", model)
    with undisturbed(model):
        images = moved(model, images)
        if isinstance(targets, Tensor) and targets.ndim != 1:
            raise ShapeError(f"targets must be int64 [{len(images)}], one class an image, found {list(targets.shape)}")
        if not isinstance(targets, Tensor) or not len(images):
            chosen = probabilities(model, images, targets, batch_size, output=output)[1]
        else:
            chosen = targets.to(images.device)
        return fade(model, images, pixel_ranks(maps), chosen, steps, baseline, batch_size, output, insert=insert)


def fade(
    model: nn.Module,
    images: Tensor,
    ranks: Tensor,
    targets: Tensor,
    steps: int,
    baseline: Baseline,
    batch_size: int,
    output: Callable[..., Tensor] | None = None,
    *,
    insert: bool,
    ends: Tensor | None = None,
) -> Tensor:
    """A curve `[N, steps + 1]`, of images on the model's device under `undisturbed`, and the ranks of their pixels.

    `ends`, `[N, 2]`, are its first and its last point where they are known: they are the same whatever the ranks.
    """
    absent = without_pixels(images, baseline)
    count, size = len(images), images.shape[2:].numel()
    ranks = ranks.to(images.device)
    # Of S equal parts; a step takes whole pixels.
    shown = torch.arange(steps + 1, device=images.device) * size // steps
    curve = images.new_zeros(count, steps + 1, dtype=torch.promote_types(images.dtype, torch.float32))
    open_steps = torch.arange(steps + 1, device=images.device)
    if ends is not None:
        curve[:, [0, -1]] = ends.to(curve)
        open_steps = open_steps[1:-1]
    wanted = torch.cartesian_prod(torch.arange(count, device=images.device), open_steps)
    for piece in wanted.split(batch_size) if len(wanted) else ():
        image, step = piece.unbind(1)
        first = (ranks[image] < shown[step, None]).unflatten(1, images.shape[2:])[:, None]
        mixed = torch.where(first == insert, images[image], absent[image])
        curve[image, step] = probabilities(model, mixed, targets[image], batch_size, image, output)[0]
    return curve


def probabilities(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | int | None,
    batch_size: int,
    rows: Tensor | None = None,
    output: Callable[..., Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Probability of a class of each image, `[N]`, and that class, `[N]`, by default the predicted one.

    `rows` are the positions of the images in the batch, if they are not all of it in order.
    """
    rows = every_row(images) if rows is None else rows
    found, chosen = [], []
    for start in range(0, len(images), batch_size):
        part = images[start : start + batch_size]
        scores = find_scores(model, model(part), rows[start : start + batch_size], output)
        own = targets[start : start + batch_size] if isinstance(targets, Tensor) else targets
        (columns,) = classes(own, scores)
        share = scores.to(torch.promote_types(scores.dtype, torch.float32)).softmax(1)
        found.append(share.gather(1, columns[:, None]).squeeze(1))
        chosen.append(columns)
    if not found:
        return images.new_zeros(0), torch.zeros(0, dtype=torch.int64, device=images.device)
    return torch.cat(found), torch.cat(chosen)


def pixel_ranks(maps: Tensor) -> Tensor:
    """The rank of each pixel of maps `[N, H, W]` from 0, the hottest, int32 `[N, H * W]`."""
    size = maps.shape[1:].numel()
    # Many a map is zero over half of the image. Were equals to keep their order, it would be that of reading.
    order = torch.randperm(size, generator=torch.Generator().manual_seed(0)).to(maps.device)
    falling = order[maps.flatten(1)[:, order].argsort(dim=1, descending=True, stable=True)]
    places = torch.arange(size, dtype=torch.int32, device=maps.device).expand(len(maps), -1)
    return torch.empty_like(falling, dtype=torch.int32).scatter_(1, falling, places)


def without_pixels(images: Tensor, baseline: Baseline) -> Tensor:
    """Values that stand in for absent pixels, of the shape of the images.

    Raises:
        ConfigError, ShapeError: see `insertion_curve`.
    """
    if isinstance(baseline, Tensor):
        try:
            return baseline.to(images).expand_as(images)
        except RuntimeError:
            raise ShapeError(
                f"baseline must broadcast to the images, {list(images.shape)}, found {list(baseline.shape)}"
            ) from None
    if baseline == "mean":
        return images.mean((2, 3), keepdim=True).expand_as(images)
    if baseline == "grey":
        return images.new_tensor(0.5).expand_as(images)
    if baseline == "blur":
        return _blur(images, max(max(images.shape[2:]) / 16, 1.0))
    raise ConfigError(f"baseline must be blur, mean or grey, or a tensor of images, found {baseline!r}")


def _blur(images: Tensor, deviation: float) -> Tensor:
    """Gaussian blur, images reflected at their edges."""
    for dim in (2, 3):
        if images.shape[dim] < 2:
            continue
        radius = min(math.ceil(3 * deviation), images.shape[dim] - 1)
        offsets = torch.arange(-radius, radius + 1, device=images.device, dtype=torch.float32)
        kernel = torch.exp(-0.5 * (offsets / deviation) ** 2)
        kernel = (kernel / kernel.sum()).to(images.dtype)
        shape, pad = ([1, 1, -1, 1], (0, 0, radius, radius)) if dim == 2 else ([1, 1, 1, -1], (radius, radius, 0, 0))
        weight = kernel.view(shape).repeat(images.shape[1], 1, 1, 1)
        images = F.conv2d(F.pad(images, pad, mode="reflect"), weight, groups=images.shape[1])
    return images

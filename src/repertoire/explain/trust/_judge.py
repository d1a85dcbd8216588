"""The judge: several explainers of one model, measured on the same images."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire import registry
from repertoire.errors import ConfigError, DataError, ShapeError
from repertoire.explain._explainer import Explainer, moved, takes_rows, undisturbed
from repertoire.explain.cam._activation import shared_passes
from repertoire.explain.trust._curves import (
    Baseline,
    area_under_curve,
    fade,
    pixel_ranks,
    probabilities,
    without_pixels,
)
from repertoire.explain.trust._judgement import RANDOM, Judged, Judgement, rank
from repertoire.explain.trust._sanity import explained_class, extreme_classes, randomize
from repertoire.explain.trust._scores import energy_inside, pointing_game
from repertoire.explain.trust._similarity import map_correlation, rank_correlation

__all__ = ["fitting", "judge", "usual_explainers"]

_USUAL = (
    "grad-cam",
    "layer-cam",
    "eigen-cam",
    "integrated-gradients",
    "gradient",
    "smooth-grad",
    "occlusion",
)
_QUICK = ("grad-cam", "layer-cam", "eigen-cam", "gradient")


def judge(
    model: nn.Module,
    images: Tensor,
    explainers: Mapping[str, Explainer] | Sequence[str] | str,
    *,
    targets: Tensor | int | None = None,
    masks: Tensor | None = None,
    steps: int = 16,
    insertion_baseline: Baseline = "blur",
    deletion_baseline: Baseline = "mean",
    batch_size: int = 64,
    seed: int = 0,
    scorer: nn.Module | None = None,
    progress: Callable[[str], None] | None = None,
) -> Judgement:
    """Measures on a sample of images how far each of several explainers can be trusted for this model.

    Each explainer is asked for the map of the same class of the same images, and the map for four things:

    - **Is it faithful?** The area under the :func:`insertion curve <repertoire.explain.insertion_curve>` minus that
      under the :func:`deletion curve <repertoire.explain.deletion_curve>`: how soon the class appears, and
      vanishes, with the pixels that the map calls hot. This ranks the explainers.
    - **Does it show what the network learned?** Its rank correlation with the map of the same network with
      :func:`random weights <repertoire.explain.randomized>`; the closer to zero the better.
    - **Does it depend on the class?** The
      :func:`correlation <repertoire.explain.class_sensitivity>` with the map of the least likely class.
    - **Does it find the object?** Its :func:`energy <repertoire.explain.energy_inside>` inside the masks, if there are
      any. Not part of the ranking: a network may well look elsewhere, and a map is to show it.

    A random map, of blotches of the size of a seventh of the image, is measured beside them: who does not beat it says
    nothing. Whether two explainers can be told apart is decided by Student's intervals of the paired differences over
    the images, which hold for all pairs at once, so that the winner being the best of many is accounted for. Of a few
    images they are as wide as they must be.

    Args:
        model: images to scores `[N, C]`; runs in evaluation mode and is left as it was.
        images: float `[N, C, H, W]`, at least two; about fifty say a good deal.
        explainers: a mapping from names to explainers; or what :func:`repertoire.registry.build` understands, one or
            several: "grad-cam", ["grad-cam", "layer-cam:layer=stage2"].
        targets: the class of each image that is explained, int64 `[N]`, or one for all; by default the predicted one.
        masks: bool `[N, H, W]`, the object's pixels, if they are known.
        steps: of the curves, at least 1; the network runs 2 (steps - 1) times an image for each explainer, and three
            times for the ends that all curves share.
        insertion_baseline, deletion_baseline: what stands in for absent pixels, as in the curves.
        batch_size: images in a pass through the network, which bounds the memory.
        seed: of random maps and random weights.
        scorer: what gives the scores of the curves, where a copy of the model gives nearly the same ones sooner, in
            bfloat16 for example: curves are most of the passes. The model itself if None.
        progress: called with the name of each explainer before it is measured.

    Returns:
        See :class:`~repertoire.explain.Judgement`, which also names explainers that do not fit the model, and why.

    Raises:
        ConfigError: no explainer fits the model, or none was named.
        UnknownName: no explainer of that name.
        ShapeError: fewer than two images, or masks or targets that do not fit them.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from repertoire.explain import judge
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        >>> found = judge(net, torch.rand(4, 3, 16, 16), ["grad-cam"], steps=4)
        >>> [row.name for row in found.rows]
        ['grad-cam']
    """
    if not isinstance(images, Tensor) or images.ndim != 4 or len(images) < 2:
        found = list(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise ShapeError(f"images must be [N, C, H, W] with N at least 2, found {found}")
    if steps < 1 or batch_size < 1:
        raise ConfigError(f"steps and batch_size must be at least 1, found {steps} and {batch_size}")
    model = getattr(model, "_orig_mod", model)
    if isinstance(explainers, str):
        explainers = [explainers]
    named = explainers if isinstance(explainers, Mapping) else {n: registry.build("explainers", n) for n in explainers}
    if not named:
        raise ConfigError("there is no explainer to judge; name at least one")
    named, failed = fitting(model, images, named)
    if not named:
        raise ConfigError("no explainer fits the model: " + "; ".join(f"{n}: {why}" for n, why in failed.items()))

    by_row = [name for name, one in named.items() if one.output is not None and takes_rows(one.output)]
    if by_row and len(images) > batch_size:
        raise ConfigError(
            f"explainer {by_row[0]} scores each image in a way of its own, by its position in the batch; judge at most "
            f"batch_size images with it, found {len(images)} and a batch_size of {batch_size}"
        )

    first = next(iter(named.values()))
    targets = explained_class(model, images, targets, first, batch_size)
    extremes = torch.cat([extreme_classes(model, part, first) for part in images.split(batch_size)])
    most, least = extremes.unbind(1)
    # Where the least likely class is the one that is explained, its map is compared with that of the most likely one.
    others = most.where(targets == least, least)
    baselines = (insertion_baseline, deletion_baseline)
    scorer = model if scorer is None else scorer
    ends = _ends(model, scorer, images, targets, baselines, batch_size)
    sample = _Sample(model, scorer, images, targets, others, masks, steps, baselines, batch_size, ends)
    # Copied together: an explainer may hold the module that it looks at.
    lottery, theirs = copy.deepcopy((model, dict(named)))
    randomize(lottery.modules(), seed)
    rows = []
    # Of another class, and of random weights.
    with shared_passes(2):
        for name, explainer in named.items():
            if progress is not None:
                progress(name)
            rows.append(_judged(name, explainer, sample, lottery, theirs[name]))
    if progress is not None:
        progress(RANDOM)
    return rank(rows, _reference(sample, seed), failed)


def usual_explainers(*, quick: bool = False) -> tuple[str, ...]:
    """The explainers to compare when none are named: one or two of each kind, with their default options.

    Args:
        quick: the few that cost little; for a report.

    Example:
        >>> from repertoire.explain import usual_explainers
        >>> "grad-cam" in usual_explainers(quick=True)
        True
    """
    known = registry.names("explainers")
    return tuple(name for name in (_QUICK if quick else _USUAL) if name in known)


def fitting(
    model: nn.Module, images: Tensor, explainers: Mapping[str, Explainer]
) -> tuple[dict[str, Explainer], dict[str, str]]:
    """The explainers that can explain this model, and why the others cannot; each is asked for the map of one image.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from repertoire.explain import GradCAM, fitting
        >>> fitting(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), torch.rand(1, 3, 2, 2), {"cam": GradCAM()})[0]
        {}
    """
    good, failed = {}, {}
    for name, explainer in explainers.items():
        try:
            explainer(model, images[:1])
        except (ConfigError, DataError, ShapeError) as error:
            failed[name] = str(error)
        else:
            good[name] = explainer
    return good, failed


@dataclass(frozen=True)
class _Sample:
    """Images and options that explainers are measured with."""

    model: nn.Module
    scorer: nn.Module
    images: Tensor
    targets: Tensor
    others: Tensor
    masks: Tensor | None
    steps: int
    baselines: tuple[Baseline, Baseline]
    batch_size: int
    ends: Tensor

    def parts(self) -> Iterator[tuple[slice, Tensor, Tensor, Tensor, Tensor | None]]:
        """Positions, images, targets, other classes and masks, a batch at a time."""
        for start in range(0, len(self.images), self.batch_size):
            rows = slice(start, start + self.batch_size)
            yield (
                rows,
                self.images[rows],
                self.targets[rows],
                self.others[rows],
                None if self.masks is None else self.masks[rows],
            )


def _ends(
    model: nn.Module,
    scorer: nn.Module,
    images: Tensor,
    targets: Tensor,
    baselines: tuple[Baseline, Baseline],
    batch_size: int,
) -> Tensor:
    """First and last points `[2, N, 2]` of the curves of insertion and deletion: all of the image, or none of it."""
    found = []
    with undisturbed(scorer):
        for rows in torch.arange(len(images)).split(batch_size):
            # As the model takes them: what stands in for absent pixels is not to be as coarse as the scores.
            inputs = moved(model, images[rows])
            own = targets[rows].to(inputs.device)

            def seen(shown: Tensor, own: Tensor = own, rows: Tensor = rows) -> Tensor:
                return probabilities(scorer, shown, own, batch_size, rows.to(shown.device))[0]

            whole = seen(inputs)
            without, removed = (seen(without_pixels(inputs, baseline)) for baseline in baselines)
            found.append(torch.stack([torch.stack([without, whole], 1), torch.stack([whole, removed], 1)]))
    return torch.cat(found, 1)


def _judged(name: str, explainer: Explainer, sample: _Sample, lottery: nn.Module, its_own: Explainer) -> Judged:
    """What is measured of an explainer; `its_own` is that of the network of random weights."""
    pieces, seconds = [], 0.0
    for rows, images, targets, others, masks in sample.parts():
        with shared_passes(0):  # how long it takes is that of the explainer by itself
            started = time.perf_counter()
            maps = explainer(sample.model, images, targets)
            if maps.is_cuda:
                torch.cuda.synchronize(maps.device)
            seconds += time.perf_counter() - started
        of_others = explainer(sample.model, images, others)
        pieces.append(
            {
                **_placed(maps, masks),
                **_faithful(maps, images, targets, sample, rows, getattr(explainer, "output", None)),
                "randomization": rank_correlation(maps, its_own(lottery, images, targets)),
                "sensitivity": map_correlation(maps, of_others),
                "same": (maps - of_others).abs().amax((1, 2)) <= 1e-5 * maps.abs().amax((1, 2)),
            }
        )
    joined = _joined(pieces)
    same = bool(joined.pop("same").all())
    declared = bool(getattr(explainer, "class_dependent", True))
    return Judged(name, joined, declared and not same, seconds / len(sample.images))


def _reference(sample: _Sample, seed: int) -> Judged:
    """A map that knows nothing, of blotches of a seventh of the image."""
    generator = torch.Generator().manual_seed(seed)
    pieces = []
    for rows, images, targets, _, masks in sample.parts():
        coarse = torch.rand(len(images), 1, 7, 7, generator=generator)
        maps = F.interpolate(coarse, images.shape[2:], mode="bilinear", align_corners=False)[:, 0]
        pieces.append(_placed(maps, masks) | _faithful(maps, images, targets, sample, rows, None))
    return Judged(RANDOM, _joined(pieces), False, 0.0)


def _placed(maps: Tensor, masks: Tensor | None) -> dict[str, Tensor]:
    return {} if masks is None else {"energy": energy_inside(maps, masks), "pointing": pointing_game(maps, masks)}


def _faithful(
    maps: Tensor,
    images: Tensor,
    targets: Tensor,
    sample: _Sample,
    rows: slice,
    output: Callable[..., Tensor] | None,
) -> dict[str, Tensor]:
    """Areas under both curves; the map is sorted once for the two."""
    ranks = pixel_ranks(maps)
    found = {}
    with undisturbed(sample.scorer):
        inputs = moved(sample.model, images)
        wanted = targets.to(inputs.device)
        for kind, baseline, ends in zip(("insertion", "deletion"), sample.baselines, sample.ends, strict=True):
            curve = fade(
                sample.scorer,
                inputs,
                ranks,
                wanted,
                sample.steps,
                baseline,
                sample.batch_size,
                output,
                insert=kind == "insertion",
                ends=ends[rows] if output is None else None,
            )
            found[kind] = area_under_curve(curve)
    found["faithfulness"] = found["insertion"] - found["deletion"]
    return found


def _joined(pieces: list[dict[str, Tensor]]) -> dict[str, np.ndarray]:
    return {key: torch.cat([piece[key] for piece in pieces]).cpu().numpy() for key in pieces[0]}

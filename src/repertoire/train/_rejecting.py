"""What a run says of images of no known class."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from repertoire.data import Samples
from repertoire.train._images import Images
from repertoire.train._opened import Opened

if TYPE_CHECKING:
    from repertoire.train._novelty import Rejector
    from repertoire.train._run import Run

__all__ = ["Rejecting"]


class Rejecting(Opened):
    """A run that may say "unknown"."""

    def reject(self, keep: float = 0.95, score: str = "auto") -> Rejector:
        """The run as one that may say "unknown": where a score of an image lies below a threshold.

        The score is fitted to the training images, and the threshold taken from validation images, so that a new image
        of a known class is kept with a probability of `keep` or more: see `repertoire.openset.threshold`. No unknown
        image is needed.

        Args:
            keep: share of images of known classes that are to keep their class, above 0 and below 1.
            score: spec of a novelty score; `repertoire list novelty-scores` names them. "auto" holds classes out in
                turn, on one half of the validation images, and takes the score that tells these best from the others;
                the threshold is from the other half. Of a run without classes, or with one, it is the distance to the
                second nearest training image.

        Raises:
            RunError: the run has several labels, numbers or maps. UnknownName: there is no such score.
            ConfigError: keep out of range, too few validation images for it, or a score that this network cannot have.
            DataError: the images that the run was trained on are not there.

        Example:
            >>> import repertoire
            >>> run = repertoire.load("runs/demo")  # doctest: +SKIP
            >>> run.reject(keep=0.95, score="energy").predict_classes("new/")  # doctest: +SKIP
        """
        from repertoire.train._novelty import rejector

        return rejector(cast("Run", self), keep, score)

    def novelty(
        self,
        unknown: Images | None = None,
        images: Samples | str | os.PathLike[str] | None = None,
        scores: Sequence[str] = (),
        *,
        skip_unreadable: bool | None = None,
    ) -> dict[str, Any]:
        """How well novelty scores tell images of known classes from others.

        Args:
            unknown: images of other classes, as in `predict`; without, the run's own classes are held out in turn: that
                says which score to take, though not what to expect of it; see `repertoire.openset.choose`.
            images: images of known classes with their labels, as in `evaluate`; the run's own test images if None.
            scores: specs of novelty scores; those of `repertoire.openset.QUICK` if none are named, and nearest
                neighbours and Deep SVDD of a run without classes.
            skip_unreadable: as in `predict`.

        Returns:
            With unknown images `accuracy`, `known` and `unknown` (numbers of images), and under `scores` what
            `repertoire.openset.Detection` holds, for each score, its `threshold` for keeping 95 % of the known, the
            shares that `passed` it, and a `histogram`; without, `best`, `groups` (the classes held out together) and
            under `scores` the AUROC of each. A score that cannot be used has a `reason` instead. Of a run without
            classes, what is about right answers is left out.

        Raises:
            RunError: the run has several labels, numbers or maps. UnknownName: there is no such score.
            ConfigError: no score can be used, or there are neither unknown images nor two classes.
            DataError, UnreadableImages: as in `evaluate`.
        """
        from repertoire.train._novelty import held_out, novelty

        if unknown is None:
            return held_out(cast("Run", self), images, scores, skip_unreadable=skip_unreadable)
        return novelty(cast("Run", self), unknown, images, scores, skip_unreadable=skip_unreadable)

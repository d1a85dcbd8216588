"""What a run does not know: thresholds from its own validation samples, and how well scores find other classes."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
from torch import nn

from repertoire.data import Samples
from repertoire.errors import ConfigError, DataError, RunError, UnknownName, Unreadable, option
from repertoire.heads import Linear
from repertoire.openset import (
    COVERAGES,
    QUICK,
    Choice,
    NoveltyScore,
    build_score,
    choose,
    detection,
    threshold,
)
from repertoire.ranges import Between, checked
from repertoire.train._answers import Answers, Predictor
from repertoire.train._images import Images

if TYPE_CHECKING:
    from repertoire.train._run import Run

__all__ = ["KNOWN", "UNKNOWN", "Rejector", "held_out", "novelty", "rejector"]

UNKNOWN = "unknown"
"""What the class of a sample is called that is of none."""

KNOWN = "known"
"""What a sample is called that is like those a run without classes was trained on."""

_NEAREST = "knn:neighbours=2"
"""What a run without classes goes by: the score of Reiss and Hoshen, *Mean-Shifted Contrastive Loss for Anomaly
Detection* (2021)."""

_MOST = 10_000
"""Training samples that a score is fitted to: these, drawn at random, where there are more."""

_KEEP = 0.95
"""Share of known samples that a threshold keeps, where none is asked for."""

_BINS = 40

Known = tuple[np.ndarray, np.ndarray, np.ndarray | None]
"""Features, logits and labels; none of a run without classes."""


class Rejector(Predictor):
    """A run that may say that it does not know: its classes, or "unknown" where a score lies below a threshold.

    A run without classes says "known" of whatever is like the samples that it was trained on.

    Made by `Run.reject`.

    Attributes:
        run: the run.
        spec: of the score.
        score: the score, fitted to the run's training samples.
        threshold: a sample whose score is below counts as unknown.
        keep: share of samples of known classes that are to be kept.
        validation: how many validation samples the threshold is from.
        choice: how the score was chosen; None where it was named.
    """

    def __init__(
        self,
        run: Run,
        spec: str,
        score: NoveltyScore,
        threshold: float,
        keep: float,
        validation: int,
        choice: Choice | None = None,
    ) -> None:
        self.run, self.spec, self.score, self.threshold = run, spec, score, threshold
        self.keep, self.validation, self.choice = keep, validation, choice

    def __repr__(self) -> str:
        return f"Rejector({str(self.run.directory)!r}, {self.spec!r} below {self.threshold:.4g} is unknown)"

    @property
    def classes(self) -> tuple[str, ...]:  # type: ignore[override]
        """Class names, in the order of the probabilities."""
        return (KNOWN,) if _nameless(self.run) else self.run.classes

    def stream(  # type: ignore[override]
        self, images: Images, *, device: str | None = None, batch_size: int = 256, tta: bool = False
    ) -> Iterator[Answers]:
        """Answers a batch at a time, each with its `scores`.

        Raises:
            ConfigError: tta, which changes what scores mean: the threshold is for single views.
        """
        if tta:
            raise ConfigError("the threshold is for single views of images; leave out tta")
        for index, features, logits, failed in self.run.stream_logits(images, device=device, batch_size=batch_size):
            if _nameless(self.run):
                values = np.ones((len(features), 1))
            else:
                values = self.run.answers_of(torch.from_numpy(logits).double()).numpy()
            yield Answers(index, values, None, failed, self.score(features, logits))

    def scores(self, images: Images, *, skip_unreadable: bool | None = None, **options: Any) -> np.ndarray:
        """Scores of images, float64 `[N]`, higher for what is known. Arguments and errors as in `Run.predict`."""
        found = self.stream(images, **options)
        rows, _ = self._collect(((a.index, (np.asarray(a.scores),), a.failed) for a in found), skip_unreadable)
        return rows[0] if rows else np.zeros(0)

    def known(self, images: Images, **options: Any) -> np.ndarray:
        """Whether each image is of a known class, bool `[N]`; an image that was skipped is not."""
        return self.scores(images, **options) >= self.threshold

    def predict_classes(
        self, images: Images, *, skip_unreadable: bool | None = None, **options: Any
    ) -> list[str | None]:
        """The class of each image, "unknown" where it is of none; None for one that was skipped."""
        found = self.stream(images, **options)
        rows, _ = self._collect(((a.index, (a.values, np.asarray(a.scores)), a.failed) for a in found), skip_unreadable)
        if not rows:
            return []
        values, scores = rows
        known = scores >= self.threshold
        names = [self.classes[best] if sure else UNKNOWN for best, sure in zip(values.argmax(1), known, strict=True)]
        return [None if np.isnan(score) else name for name, score in zip(names, scores, strict=True)]

    @property
    def _skips(self) -> bool:
        return self.run.config.skip_unreadable


@checked
def rejector(run: Run, keep: Annotated[float, Between(0, 1, "()")] = 0.95, score: str = "auto") -> Rejector:
    """What `Run.reject` gives."""
    _check_run(run)
    val, choice = _known_samples(run, "val"), None
    train = functools.cache(lambda: _known_samples(run, "train"))
    least = math.ceil(1 / (1 - keep) - 1 - 1e-9)
    if len(val[0]) < least:
        raise ConfigError(
            f"{len(val[0])} validation samples are too few to keep {keep:.6g} of the known ones: it takes {least} or "
            f"more. Keep less, such as {option('reject', '0.9')}, or train with more of them: {option('val', '0.3')}"
        )
    if score == "auto" and len(run.classes) < 2:
        score = _of_features(run)[0]
    if score == "auto":
        weight, bias = _last_layer(run)
        half = len(val[0]) // 2
        if half >= least:
            # Samples that the score was chosen by promise nothing for its threshold.
            order = np.random.default_rng(0).permutation(len(val[0]))
            (x, f, y), val = (_some(val, np.sort(part)) for part in (order[::2], order[1::2]))
            choice = choose(x, f, y, QUICK, fit_on=train(), weight=weight, bias=bias)
        else:
            # All of them are needed for the threshold, and the score is chosen among training samples.
            choice = choose(*train(), QUICK, weight=weight, bias=bias)
        score = choice.best
    built = _fitted(run, score, train)
    line = threshold(built(*val[:2]), 1 - keep)
    return Rejector(run, score, built, line, keep, len(val[0]), choice)


def novelty(
    run: Run,
    unknown: Images,
    images: Any = None,
    scores: Sequence[str] = (),
    *,
    skip_unreadable: bool | None = None,
) -> dict[str, Any]:
    """What `Run.novelty` gives."""
    _check_run(run)
    nameless = _nameless(run)
    scores = tuple(scores) or (_of_features(run) if len(run.classes) < 2 else QUICK)
    _check_scores(scores)
    if nameless:
        given = run.splits.test if images is None else images
        features, logits = _gathered(run, given, skip_unreadable, "known")
        # There is no wrong answer but that an unknown sample is known.
        correct = np.ones(len(features), bool)
    else:
        found = run.outputs(images, skip_unreadable=skip_unreadable)
        labelled = found.labels >= 0
        if not labelled.any():
            raise DataError("none of the images of known classes has a label, so nothing says which are right")
        features, logits = found.embeddings[labelled], found.logits[labelled]
        correct = logits.argmax(1) == found.labels[labelled]
    other = _gathered(run, unknown, skip_unreadable)
    train, val = (functools.cache(functools.partial(_known_samples, run, part)) for part in ("train", "val"))
    rows = []
    for spec in scores:
        try:
            score = _fitted(run, spec, train)
            known, strange = score(features, logits), score(*other)
            measured = detection(known, correct, strange)
        except UnknownName:
            raise
        except ConfigError as error:
            rows.append({"score": spec, "reason": str(error)})
            continue
        row = {"score": spec, **asdict(measured), "histogram": _histogram(known, strange)}
        if nameless:
            del row["oscr"], row["aurc"], row["risk"], row["intervals"]["oscr"]
        rows.append(row | _at_threshold(score, val, known, strange))
    if all("reason" in row for row in rows):
        raise ConfigError("no score can be used: " + "; ".join(f"{row['score']}: {row['reason']}" for row in rows))
    return {
        **({} if nameless else {"accuracy": float(correct.mean())}),
        "known": len(correct),
        "unknown": len(other[0]),
        "keep": _KEEP,
        "coverages": list(COVERAGES),
        "scores": rows,
    }


def _at_threshold(
    score: NoveltyScore, val: Callable[[], Known], known: np.ndarray, unknown: np.ndarray
) -> dict[str, Any]:
    """The threshold that `Run.reject` would take with this score, and how many samples pass it; no more than that it
    is None where there are too few validation samples for one."""
    try:
        line = threshold(score(*val()[:2]), 1 - _KEEP)
    except ConfigError:
        return {"threshold": None}
    passed = {"known": float((known >= line).mean()), "unknown": float((unknown >= line).mean())}
    return {"threshold": line, "passed": passed}


def _histogram(known: np.ndarray, unknown: np.ndarray) -> dict[str, Any]:
    """How many samples have which scores: edges of 40 bins, and counts. Scores far outside are in the end bins: a
    long tail of unknown samples would leave one bar to all known ones."""
    both = np.concatenate([known, unknown])
    low, high = np.quantile(known, (0.01, 0.99))
    room = 3 * (high - low)
    low, high = max(low - room, np.quantile(both, 0.005)), min(high + room, np.quantile(both, 0.995))
    if not high > low:
        low, high = float(both.min()) - 0.5, float(both.max()) + 0.5
    edges = np.linspace(low, high, _BINS + 1)
    counts = [np.histogram(part.clip(low, high), edges)[0].tolist() for part in (known, unknown)]
    return {"edges": edges.tolist(), "known": counts[0], "unknown": counts[1]}


def held_out(
    run: Run, images: Any = None, scores: Sequence[str] = (), *, skip_unreadable: bool | None = None
) -> dict[str, Any]:
    """What `Run.novelty` gives without unknown images: classes held out in turn."""
    _check_run(run)
    scores = tuple(scores) or QUICK
    _check_scores(scores)
    if len(run.classes) < 2:
        raise ConfigError(
            f"{run.directory} has no two classes, so that none can be held out: name images that it does not know, "
            f"with {option('unknown', 'OTHER/')}"
        )
    found = run.outputs(images, skip_unreadable=skip_unreadable)
    labelled = found.labels >= 0
    asked = (found.embeddings[labelled], found.logits[labelled], found.labels[labelled])
    weight, bias = _last_layer(run)
    choice = choose(*asked, scores, fit_on=_known_samples(run, "train"), weight=weight, bias=bias)
    return {
        "best": choice.best,
        "groups": [[run.classes[c] for c in group] for group in choice.groups],
        "scores": [
            {"score": each.spec, "reason": each.reason}
            if each.reason
            else {
                "score": each.spec,
                "auroc": each.auroc,
                "interval": list(each.interval),
                "groups": [None if np.isnan(value) else value for value in each.groups],
            }
            for each in choice.scores
        ],
    }


def _check_run(run: Run) -> None:
    if run.task.kind not in ("classes", "none"):
        raise RunError(f"{run.directory} has no class for each image, so that none of its answers is of a known class")


def _nameless(run: Run) -> bool:
    """Whether a run was trained without classes: on images of one kind, say."""
    return run.task.kind == "none"


def _of_features(run: Run) -> tuple[str, ...]:
    """Scores that need no classes, the one to go by first."""
    # Vectors come standardised, and about zero a direction says little.
    return (_NEAREST + (",normalize=false" if run.facts.modality == "features" else ""), "deep-svdd")


def _check_scores(scores: Sequence[str]) -> None:
    """Refuses names of scores that there are not, before anything is computed."""
    for spec in scores:
        build_score(spec, torch.eye(2))


def _last_layer(run: Run) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Weight and bias of a linear last layer; None where there is no such layer."""
    head = run.model.head
    if not isinstance(head, Linear) or not isinstance(head.linear, nn.Linear):
        return None, None
    bias = head.linear.bias
    return head.linear.weight.detach().cpu().numpy(), None if bias is None else bias.detach().cpu().numpy()


def _known_samples(run: Run, part: str) -> Known:
    """Features, logits and labels of the training or validation samples that have a class."""
    samples: Samples = getattr(run.splits, part)
    nameless = _nameless(run)
    rows = np.arange(len(samples)) if nameless else np.flatnonzero(samples.known)
    if len(rows) > _MOST:
        rows = np.sort(np.random.default_rng(0).choice(rows, _MOST, replace=False))
    if not len(rows):
        what = "validation" if part == "val" else "training"
        raise ConfigError(
            f"{run.directory} has no {what} samples{'' if nameless else ' with a class'}, and a threshold is taken "
            "from them"
        )
    found = run.outputs(samples.subset(rows))
    return found.embeddings, found.logits, None if nameless else found.labels


def _some(known: Known, index: np.ndarray) -> Known:
    features, logits, labels = known
    return features[index], logits[index], None if labels is None else labels[index]


def _fitted(run: Run, spec: str, train: Callable[[], Known]) -> NoveltyScore:
    """A score, fitted to training samples where it learns from any."""
    score = build_score(spec, *_last_layer(run))
    if _nameless(run) and score.reads != {"features"}:
        raise ConfigError(
            f"novelty score {spec!r} looks at classes, and {run.directory} was trained without: use "
            f"{' or '.join(_of_features(run))}"
        )
    if score.learns:
        return score.fit(*train())
    return score.fit(np.zeros((1, run.model.backbone.out_features)), np.zeros((1, run.model.head.num_classes)))


def _gathered(run: Run, images: Images, skip: bool | None, what: str = "unknown") -> tuple[np.ndarray, np.ndarray]:
    """Features and logits of the images that can be used."""
    from repertoire.errors import UnreadableImages

    features, logits = [], []
    failures: list[Unreadable] = []
    for _, x, f, failed in run.stream_logits(images):
        features.append(x)
        logits.append(f)
        failures.extend(failed)
    count = sum(map(len, features))
    if failures and not (run.config.skip_unreadable if skip is None else skip):
        raise UnreadableImages(failures, count + len(failures))
    if not count:
        raise DataError(f"there is no {what} {run.noun} that can be used")
    return np.concatenate(features), np.concatenate(logits)

"""An estimator on features that goes through the stages of a protocol."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from repertoire import registry
from repertoire.data import FeatureSet, Splits, digest
from repertoire.errors import ConfigError, DataError, RunError, ascii_path, option
from repertoire.files import lock_directory, write_json
from repertoire.protocols._base import Protocol, StageData, options_of
from repertoire.protocols._outcome import Outcome, as_matrix

if TYPE_CHECKING:
    from repertoire.estimators import FeatureEstimator

__all__ = ["observe"]


def observe(
    protocol: str | Protocol,
    estimator: Any,
    splits: Splits,
    seed: int = 0,
    *,
    out: str | os.PathLike[str] | None = None,
    bounds: bool = False,
) -> Outcome:
    """Shows an estimator on features the stages of a protocol, one after another.

    Each stage is one call of `partial_fit` with the features and class names of that stage alone.

    Args:
        protocol: a protocol or its spec, such as "classes:step=2".
        estimator: with `partial_fit` and `predict`; or the spec of one, such as "nearest-centroid".
        splits: of features.
        seed: of the stages, and of what an estimator that is named draws.
        out: directory to keep what is left after each stage in, for estimators of Repertoire; called again, it goes on
            where it was interrupted. The estimator that has seen everything lies in a folder of it that is named by the
            last stage. Nothing is written if None.
        bounds: also fit another one to everything at once, "joint" in the metrics.

    Raises:
        ConfigError: the estimator cannot learn piece by piece, or cannot be kept. DataError: the samples are no
        features. RunError: another process is writing there.

    Example:
        >>> from repertoire.data import FeatureSet, Splits, load
        >>> from repertoire.protocols import observe
        >>> digits = load("digits")
        >>> def flat(part):
        ...     features = part.inputs(slice(None)).reshape(len(part), -1).astype("float32")
        ...     return FeatureSet(features, part.labels, part.names, part.classes, part.keys)
        >>> splits = Splits(flat(digits.train), flat(digits.val), flat(digits.test), "digits")
        >>> outcome = observe("classes:step=5", "nearest-centroid", splits)
        >>> outcome.metrics["accuracy"] > 0.8, outcome.matrix.shape
        (True, (2, 2))
    """
    # scikit-learn takes a second to import, and whoever writes a report wants no more of this package than an outcome.
    from repertoire.estimators import FeatureEstimator

    protocol = registry.build("protocols", protocol) if isinstance(protocol, str) else protocol
    named = isinstance(estimator, str)
    model = registry.build("feature-estimators", estimator) if named else estimator
    if named and getattr(model, "random_state", 0) is None:
        model.set_params(random_state=seed)
    if not hasattr(model, "partial_fit"):
        raise ConfigError(
            f"estimator {type(model).__name__} learns from everything at once: it has no partial_fit. Use "
            "nearest-centroid, or any estimator of scikit-learn that has one"
        )
    if not isinstance(splits.train, FeatureSet):
        raise DataError(f"observe takes features, and these are {splits.train.noun}s: embed them with a run first")
    course = _Course(model, list(protocol.stages(splits, seed)))
    if out is None:
        rows = [course.stage(t) for t in range(len(course.stages))]
        path = None
    else:
        if not isinstance(model, FeatureEstimator):
            raise ConfigError(f"{type(model).__name__} is none of Repertoire's estimators, and cannot be kept: no out")
        path = Path(out) / _name(model, protocol, splits, seed)
        with lock_directory(path):
            rows = course.kept(path, protocol, seed, splits)
    matrix, within = (as_matrix([row[name] for row in rows]) for name in ("accuracy", "within"))
    metrics = protocol.measure(matrix)
    metrics |= {"memory_bytes": 0.0, "state_bytes": float(rows[-1]["state_bytes"])}
    if bounds:
        metrics["joint"] = course.joint()
    several = len(course.stages) > 1 and all(stage.new for stage in course.stages)
    apart = several and np.isfinite(within[np.tril(np.ones_like(within, dtype=bool))]).all()
    outcome = Outcome(tuple(s.name for s in course.stages), matrix, within if apart else None, metrics, path)
    if path is not None:
        write_json(path / "outcome.json", outcome.record())
    return outcome


class _Course:
    """An estimator on its way through the stages."""

    def __init__(self, model: Any, stages: Sequence[StageData]) -> None:
        from sklearn.base import clone

        self.model = model
        self.fresh = clone(model) if hasattr(model, "get_params") else None
        self.stages = stages
        self.everything = np.array(sorted(stages[-1].classes))

    def kept(self, path: Path, protocol: Protocol, seed: int, splits: Splits) -> list[dict[str, Any]]:
        """What was measured after each stage; the estimator is kept after each, until the next one is."""
        from repertoire.estimators import load_estimator, save_estimator

        content = {
            "protocol": repr(options_of(protocol)),
            "stages": [stage.name for stage in self.stages],
            "config": {"data": splits.source, "learner": repr(self.model), "seed": seed},
        }
        write_json(path / "stages.json", content)
        rows: list[dict[str, Any]] = []
        for t in range(len(self.stages)):
            record, folder = path / f"{t:02d}.json", path / f"{t:02d}"
            if record.exists():
                rows.append(json.loads(record.read_text(encoding="utf-8")))
                continue
            if t > 0:
                before = path / f"{t - 1:02d}"
                if not before.is_dir():
                    raise RunError(
                        f"the estimator of stage {t} is gone from {ascii_path(str(path))}; remove the folder"
                    )
                self.model = load_estimator(before)
            rows.append(self.stage(t))
            save_estimator(self.model, folder)
            # After the estimator: what was measured says that the stage is over.
            write_json(record, rows[-1])
            if t > 0:
                shutil.rmtree(path / f"{t - 1:02d}", ignore_errors=True)
        return rows

    def stage(self, t: int) -> dict[str, Any]:
        """Learns a stage, and gives what is left of all so far."""
        from repertoire.estimators import FeatureEstimator

        stage, started = self.stages[t], time.perf_counter()
        names = np.array(stage.classes)
        known = stage.train.subset(np.flatnonzero(stage.train.known))
        more = {"classes": self.everything} if t == 0 else {}
        self.model.partial_fit(known.inputs(slice(None)), names[known.labels], **more)
        seconds = time.perf_counter() - started
        accuracy, within = [], []
        for samples in stage.evaluate.values():
            X, truth = samples.inputs(slice(None)), names[samples.labels]
            accuracy.append(float((self.model.predict(X) == truth).mean()))
            within.append(self._within(X, truth))
        size = _nbytes(self.model.fitted_state()) if isinstance(self.model, FeatureEstimator) else 0
        return {"accuracy": accuracy, "within": within, "seconds": seconds, "state_bytes": size}

    def _within(self, X: np.ndarray, truth: np.ndarray) -> float | None:
        """Accuracy where only the classes of the samples compete; None of estimators without probabilities."""
        if not hasattr(self.model, "predict_proba"):
            return None
        own = np.isin(self.model.classes_, truth)
        found = self.model.classes_[own][self.model.predict_proba(X)[:, own].argmax(1)]
        return float((found == truth).mean())

    def joint(self) -> float:
        """Mean accuracy over the stages of an estimator that is fitted to everything at once."""
        if self.fresh is None:
            raise ConfigError(f"{type(self.model).__name__} cannot be made anew: leave {option('bounds')} out")
        last = self.stages[-1]
        names = np.array(last.classes)
        parts = [stage.train.subset(np.flatnonzero(stage.train.known)) for stage in self.stages]
        X = np.concatenate([part.inputs(slice(None)) for part in parts])
        self.fresh.partial_fit(X, np.concatenate([names[part.labels] for part in parts]), classes=self.everything)
        shares = [
            (self.fresh.predict(samples.inputs(slice(None))) == names[samples.labels]).mean()
            for samples in last.evaluate.values()
        ]
        return float(np.mean(shares))


def _nbytes(value: Any) -> int:
    """Bytes of the arrays in what fitting left behind, and 8 for each other number."""
    if isinstance(value, dict):
        return sum(map(_nbytes, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(_nbytes, value))
    return int(value.nbytes) if isinstance(value, np.ndarray) else 8 * isinstance(value, int | float)


def _name(model: FeatureEstimator, protocol: Protocol, splits: Splits, seed: int) -> str:
    """Name of the folder: the estimator, and a hash of all that decides what comes out."""
    entry = next((e for e in registry.entries("feature-estimators") if e.factory is type(model)), None)
    content = [repr(sorted(model.get_params(deep=False).items())), options_of(protocol), digest(splits), seed]
    found = hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=4).hexdigest()
    return f"{type(model).__name__ if entry is None else entry.name}-{found}"

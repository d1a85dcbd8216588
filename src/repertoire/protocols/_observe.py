"""An estimator on features that goes through the stages of a protocol."""

from __future__ import annotations

from typing import Any

import numpy as np

from repertoire import registry
from repertoire.data import FeatureSet, Splits
from repertoire.errors import ConfigError, DataError
from repertoire.protocols._base import Protocol
from repertoire.protocols._outcome import Outcome

__all__ = ["observe"]


def observe(protocol: str | Protocol, estimator: Any, splits: Splits, seed: int = 0) -> Outcome:
    """Shows an estimator on features the stages of a protocol, one after another.

    Each stage is one call of `partial_fit` with the features and class names of that stage alone.

    Args:
        protocol: a protocol or its spec, such as "classes:step=2".
        estimator: with `partial_fit` and `predict`; or the spec of one, such as "nearest-centroid".
        splits: of features.
        seed: of the stages.

    Raises:
        ConfigError: the estimator cannot learn piece by piece. DataError: the samples are no features.

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
    protocol = registry.build("protocols", protocol) if isinstance(protocol, str) else protocol
    model = registry.build("feature-estimators", estimator) if isinstance(estimator, str) else estimator
    if not hasattr(model, "partial_fit"):
        raise ConfigError(
            f"estimator {type(model).__name__} learns from everything at once: it has no partial_fit. Use "
            "nearest-centroid, or any estimator of scikit-learn that has one"
        )
    if not isinstance(splits.train, FeatureSet):
        raise DataError(f"observe takes features, and these are {splits.train.noun}s: embed them with a run first")
    stages = list(protocol.stages(splits, seed))
    everything = np.array(sorted(stages[-1].classes))
    matrix = np.full((len(stages), len(stages)), np.nan)
    for t, stage in enumerate(stages):
        names = np.array(stage.classes)
        more = {"classes": everything} if t == 0 else {}
        model.partial_fit(stage.train.inputs(slice(None)), names[stage.train.labels], **more)
        for i, samples in enumerate(stage.evaluate.values()):
            matrix[t, i] = (model.predict(samples.inputs(slice(None))) == names[samples.labels]).mean()
    return Outcome(tuple(s.name for s in stages), matrix, metrics=protocol.measure(matrix))

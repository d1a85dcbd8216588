"""One or more numbers a sample."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import numpy as np

from repertoire.data import Samples
from repertoire.errors import DataError
from repertoire.tasks._base import Best, Outputs, Task

__all__ = ["Number"]


class Number(Task):
    r"""One or more numbers a sample.

    The loss sees them standardised, :math:`(y - \mu) / \sigma` with mean and standard deviation of the training set, so
    that one learning rate does for grams and for kilometres; whatever is shown is in the units of the data.

    Args:
        names: of the numbers.
        mean, std: of each number over the training set; a standard deviation of zero counts as one.
        range: the smallest and the largest number of the training set, as the loss sees them; for losses that divide
            the range into bins or digits.

    Example:
        >>> import numpy as np
        >>> from repertoire.tasks import Number, Outputs
        >>> task = Number(("age",), mean=(40.0,), std=(10.0,))
        >>> answers = np.array([[0.0], [1.0]], dtype=np.float32)  # what the loss reads out of the logits
        >>> labels = np.array([[42.0], [50.0]], dtype=np.float32)
        >>> task.score(Outputs(answers, answers, labels, answers))["mae"]
        1.0
    """

    kind = "number"
    loss = "mse"
    best = Best("error", False, "", "mean absolute error")
    headline = MappingProxyType({"mae": "mean absolute error {:.4g}", "r2": "R2 {:.3f}"})

    def __init__(
        self,
        names: tuple[str, ...],
        mean: tuple[float, ...],
        std: tuple[float, ...],
        range: tuple[float, float] = (-3.0, 3.0),
    ) -> None:
        super().__init__(names)
        if not len(names) == len(mean) == len(std):
            raise DataError(f"{len(names)} numbers need a mean and a std each, found {len(mean)} and {len(std)}")
        low, high = range
        self.range = (float(low), float(high) if high > low else float(low) + 1)
        self.mean = np.asarray(mean, dtype=np.float64)
        self.std = np.asarray([value if value > 0 else 1.0 for value in std], dtype=np.float64)

    @classmethod
    def of(cls, samples: Samples) -> Number:
        """The task of a training set.

        Raises:
            DataError: one of the numbers is known of no sample.
        """
        if not np.isfinite(samples.labels).any(0).all():
            raise DataError("one of the numbers is missing in every training sample")
        mean = np.atleast_1d(np.nanmean(samples.labels, axis=0, dtype=np.float64))
        std = np.atleast_1d(np.nanstd(samples.labels, axis=0, dtype=np.float64))
        task = cls(samples.classes, tuple(map(float, mean)), tuple(map(float, std)))
        encoded = task.encode(samples.labels)
        span = float(np.nanmin(encoded)), float(np.nanmax(encoded))
        return cls(task.names, tuple(task.mean), tuple(task.std), span)

    def encode(self, labels: np.ndarray) -> np.ndarray:
        return ((labels - self.mean) / self.std).astype(np.float32)

    def decode(self, answers: np.ndarray) -> np.ndarray:
        """Numbers in the units of the data, float64 `[N, k]`."""
        answers = answers.astype(np.float64)
        return (answers if answers.ndim == 2 else answers[:, None]) * self.std + self.mean

    def score(self, outputs: Outputs) -> dict[str, Any]:
        """Metrics of the numbers that are known.

        Keys: `samples`; `mae` and `rmse`, in the units of the data where there is one number, and means over the
        numbers otherwise; `error`, the mean absolute error in standard deviations of the training set; `r2` (share of
        the variance explained, mean over the numbers); `spearman` (rank correlation, likewise); and `per_number`.
        """
        from scipy.stats import spearmanr

        answers = self.decode(outputs.logits if outputs.answers is None else outputs.answers)
        truth = outputs.labels.astype(np.float64)
        rows = []
        for k, name in enumerate(self.names):
            known = np.isfinite(truth[:, k])
            y, found = truth[known, k], answers[known, k]
            if not len(y):
                continue
            away = found - y
            spread = float(((y - y.mean()) ** 2).sum())
            varied = len(y) > 1 and np.ptp(y) > 0 and np.ptp(found) > 0
            rows.append(
                {
                    "number": name,
                    "samples": len(y),
                    "mae": float(np.abs(away).mean()),
                    "rmse": float(np.sqrt((away**2).mean())),
                    "error": float(np.abs(away).mean() / self.std[k]),
                    "bias": float(away.mean()),
                    "r2": 1 - float((away**2).sum()) / spread if spread else None,
                    "spearman": float(spearmanr(found, y).statistic) if varied else None,
                }
            )
        if not rows:
            return {"samples": 0}

        def mean(key: str) -> float | None:
            values = [value for row in rows if isinstance(value := row[key], float)]
            return float(np.mean(values)) if values else None

        keys = ("mae", "rmse", "error", "r2", "spearman")
        return {
            "samples": int(np.isfinite(truth).any(1).sum()),
            **{key: mean(key) for key in keys},
            "per_number": rows,
        }

    def info(self) -> dict[str, Any]:
        return {**super().info(), "mean": self.mean.tolist(), "std": self.std.tolist(), "range": list(self.range)}

"""Several labels a sample."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import numpy as np
from scipy.special import expit, log_expit

from repertoire.metrics import auroc, average_precision
from repertoire.tasks._base import Best, Outputs, Task

__all__ = ["Labels"]


class Labels(Task):
    """Several labels a sample, each of which holds or does not; what nobody knows does not count.

    Example:
        >>> import numpy as np
        >>> from repertoire.tasks import Labels, Outputs
        >>> logits = np.array([[2.0, -1.0], [-3.0, 1.0], [1.0, 2.0]], dtype=np.float32)
        >>> labels = np.array([[1, 0], [0, 1], [1, 0]], dtype=np.uint8)
        >>> metrics = Labels(("cat", "dog")).score(Outputs(logits, logits, labels))
        >>> metrics["mean_average_precision"], round(metrics["exact_match"], 3)
        (0.75, 0.667)
    """

    kind = "labels"
    loss = "bce"
    best = Best("mean_average_precision", True, "nll", "mean average precision")
    headline = MappingProxyType({"mean_average_precision": "mAP {:.1%}", "micro_f1": "F1 {:.1%}"})

    def score(self, outputs: Outputs) -> dict[str, Any]:
        """Metrics of the labels that are known.

        Keys: `samples`; `mean_average_precision` (over the labels that occur), `macro_auroc`, `micro_f1` and `macro_f1`
        (at a probability of a half), `hamming` (share of wrong answers), `exact_match` (share of samples with all
        answers right), `nll` (mean binary cross-entropy, natural logarithm), `one_error` (share of samples whose surest
        label is wrong, of those with any), and `per_label`.
        """
        logits = outputs.logits.astype(np.float64)
        known, truth = outputs.labels != 255, outputs.labels == 1
        counted = known.any(1)
        if not counted.any():
            return {"samples": 0}
        logits, known, truth = logits[counted], known[counted], truth[counted]
        said = logits > 0
        right = (said == truth) | ~known
        nll = -np.where(truth, log_expit(logits), log_expit(-logits))
        hits, claimed, there = (truth & said & known).sum(0), (said & known).sum(0), (truth & known).sum(0)
        rows = []
        for k, name in enumerate(self.names):
            of = known[:, k]
            both = 0 < int(there[k]) < int(of.sum())
            rows.append(
                {
                    "label": name,
                    "samples": int(of.sum()),
                    "positives": int(there[k]),
                    "average_precision": float(average_precision(logits[of, k], truth[of, k])) if there[k] else None,
                    "auroc": float(auroc(logits[of, k], truth[of, k])) if both else None,
                    "precision": float(hits[k] / claimed[k]) if claimed[k] else None,
                    "recall": float(hits[k] / there[k]) if there[k] else None,
                    "f1": float(2 * hits[k] / (claimed[k] + there[k])) if claimed[k] + there[k] else None,
                }
            )
        some = truth.any(1)
        surest = np.where(known, logits, -np.inf).argmax(1)
        return {
            "samples": int(counted.sum()),
            "mean_average_precision": _mean(row["average_precision"] for row in rows),
            "macro_auroc": _mean(row["auroc"] for row in rows),
            "micro_f1": float(2 * hits.sum() / max(1, claimed.sum() + there.sum())),
            "macro_f1": _mean(row["f1"] for row in rows),
            "hamming": float((~right).sum() / known.sum()),
            "exact_match": float(right.all(1).mean()),
            "one_error": float(1 - truth[some, surest[some]].mean()) if some.any() else None,
            "nll": float(nll[known].mean()),
            "per_label": rows,
        }

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """The probability of each label, float64 `[N, K]`."""
        return expit(logits.astype(np.float64))


def _mean(values: Any) -> float | None:
    found = [value for value in values if value is not None]
    return float(np.mean(found)) if found else None

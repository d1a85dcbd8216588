"""What a measured claim leaves behind, and under which circumstances it was measured."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repertoire.claims._claim import Budget, BudgetName, Claim, Measured
from repertoire.compare import Verdict, interval, verdict
from repertoire.errors import DataError, RunError
from repertoire.files import write_json

__all__ = ["FOLDER", "Evidence", "evidence", "stored", "summarise"]

FOLDER = Path(__file__).parent / "evidence"
FORMAT = 1


@dataclass(frozen=True)
class Evidence:
    """A claim, measured.

    Attributes:
        slug, statement, metric, method, baseline, data, threshold, higher_is_better: as the claim says.
        budget: the budget it was measured at.
        verdict: "holds", "does not hold" or "inconclusive".
        seeds: the seeds, `[n]`.
        method_values, baseline_values: the metric for each seed, `[n]`.
        differences: by how much the method was better for each seed, `[n]`.
        mean: of the differences.
        interval: 95 % confidence interval of the mean difference, or None for a single seed.
        extra: further figures by name, each `[n]`.
        seconds: time of all seeds together, as if one after the other.
        versions: of Python, torch, NumPy and Repertoire.
        commit: of the source; None outside a checkout.
        machine: in words.
        measured: date and time (UTC, ISO 8601).
        fingerprint: of the program that measured, see `Claim.fingerprint`.
    """

    slug: str
    budget: BudgetName
    verdict: Verdict
    statement: str
    metric: str
    method: str
    baseline: str
    data: str
    threshold: float
    higher_is_better: bool
    seeds: list[int]
    method_values: list[float]
    baseline_values: list[float]
    differences: list[float]
    mean: float
    interval: tuple[float, float] | None
    extra: dict[str, list[float]]
    seconds: float
    versions: dict[str, str]
    commit: str | None
    machine: str
    measured: str
    fingerprint: str

    def is_stale(self, claim: Claim) -> bool:
        """Whether the claim is no longer the program that measured this."""
        return self.fingerprint != claim.fingerprint

    def write(self, folder: Path | None = None) -> Path:
        """Stores the evidence as `SLUG.BUDGET.json`, atomically.

        Raises:
            RunError: the folder cannot be written to.
        """
        path = (folder or FOLDER) / f"{self.slug}.{self.budget}.json"
        try:
            write_json(path, {"format": FORMAT, **dataclasses.asdict(self)})
        except OSError as error:
            raise RunError(f"cannot store the evidence {path}: {error.strerror}; run without storing") from error
        return path


def summarise(claim: Claim, budget: Budget, measured: list[Measured], seconds: float) -> Evidence:
    """Evidence from what the seeds 0, 1, 2, ... gave, in that order."""
    import torch

    from repertoire.train._environment import describe

    circumstances = describe(torch.device(budget.device))
    differences = [claim.difference(m) for m in measured]
    return Evidence(
        slug=claim.slug,
        budget=budget.name,
        verdict=verdict(differences, claim.threshold),
        statement=claim.statement,
        metric=claim.metric,
        method=claim.method,
        baseline=claim.baseline,
        data=claim.data,
        threshold=claim.threshold,
        higher_is_better=claim.higher_is_better,
        seeds=list(range(len(measured))),
        method_values=[m.method for m in measured],
        baseline_values=[m.baseline for m in measured],
        differences=differences,
        mean=sum(differences) / len(differences),
        interval=interval(differences) if len(differences) > 1 else None,
        extra={name: [m.extra[name] for m in measured] for name in measured[0].extra},
        seconds=round(seconds, 1),
        versions={name: circumstances[name] for name in ("python", "torch", "numpy", "repertoire")},
        commit=circumstances["commit"],
        machine=f"{circumstances['machine']}; one thread a seed"
        if budget.device == "cpu"
        else circumstances["machine"],
        measured=circumstances["created"],
        fingerprint=claim.fingerprint,
    )


def evidence(slug: str, budget: BudgetName | None = None, *, folder: Path | None = None) -> Evidence | None:
    """The stored evidence of a paper's claim, or None if there is none.

    Args:
        slug: of the paper's card.
        budget: which evidence; by default that of `full` and, without it, that of `small`.
        folder: where it lies; by default the one that comes with Repertoire.

    Raises:
        DataError: the file is damaged.
    """
    for name in (budget,) if budget else ("full", "small"):
        path = (folder or FOLDER) / f"{slug}.{name}.json"
        try:
            return _read(path)
        except FileNotFoundError:
            continue
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{path} is not evidence ({error}); remove it and run: repertoire claims run {slug}"
            ) from None
    return None


def stored(folder: Path | None = None) -> list[Evidence]:
    """All evidence, by slug; where there is evidence at two budgets, that of `full`.

    Raises:
        DataError: a file is damaged.
    """
    slugs = {path.name.removesuffix(".json").rpartition(".")[0] for path in (folder or FOLDER).glob("*.*.json")}
    found = (evidence(slug, folder=folder) for slug in sorted(slugs))
    return [item for item in found if item is not None]


def _read(path: Path) -> Evidence:
    fields: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if fields.pop("format") != FORMAT:
        raise DataError(
            f"{path} was written by another version of Repertoire; run: repertoire claims run {fields['slug']}"
        )
    if fields["interval"] is not None:
        fields["interval"] = tuple(fields["interval"])
    return Evidence(**fields)

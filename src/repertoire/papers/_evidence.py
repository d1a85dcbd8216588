"""Stored evidence, read as data: what a claim's measurement left behind."""

from __future__ import annotations

import dataclasses
import json
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from repertoire.errors import DataError, RunError
from repertoire.files import write_json
from repertoire.statistics import NOMINAL, VERDICTS, Kind, Verdict, contrasts

__all__ = [
    "FOLDER",
    "TIERS",
    "Evidence",
    "Tier",
    "evidence",
    "evidence_file",
    "read_evidence",
    "stored_evidence",
    "tally",
    "user_folder",
]

FOLDER = Path(__file__).parent / "evidence"
FORMAT = 2

_SEVERAL = {"holds": "hold", "does not hold": "do not hold"}

Tier = Literal["drawn", "toy", "real, small", "paper", "yours"]
TIERS: tuple[Tier, ...] = get_args(Tier)

_WORTH: dict[Tier, str] = {
    "drawn": "drawn data",
    "toy": "toy data",
    "real, small": "small real data",
    "paper": "the paper's data",
    "yours": "your data",
}


def user_folder() -> Path:
    """Directory of a user's own evidence: $REPERTOIRE_EVIDENCE, or `repertoire/evidence` with the user's data."""
    chosen = os.environ.get("REPERTOIRE_EVIDENCE")
    if chosen:
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "repertoire" / "evidence"


def tally(verdicts: Iterable[str]) -> str:
    """How often there is each verdict, the most frequent first, as part of a sentence.

    Example:
        >>> from repertoire.papers import tally
        >>> tally(["holds", "undecided", "holds"])
        '2 hold, 1 undecided'
    """
    counts = Counter(verdicts).most_common()
    return ", ".join(f"{n} {verdict if n == 1 else _SEVERAL.get(verdict, verdict)}" for verdict, n in counts)


@dataclass(frozen=True)
class Evidence:
    """A claim, measured.

    Attributes:
        slug, part: of the claim; the part is "" for the central claim of the paper.
        budget: the budget it was measured at.
        verdict: "holds", "does not hold", "undecided", or "no answer" where the bed failed.
        reason: why, in a few words; "" where there is nothing to add.
        statement, metric, kind, threshold, strict, higher_is_better, overlap, exact: as the claim says.
        arms: what was compared, in the order of the values; method and baseline for most kinds.
        points: where the arms of a trend stand.
        data, tier: what it was measured on.
        seeds: the seeds, `[n]`.
        values: the metric of each arm for each seed, `[n][arms]`.
        trivial: what the trivial answer scores, `[n]`; None where the claim names none.
        mean: of the contrast that decides, in favour of the method.
        interval: of that mean at the confidence of a look; None for a single seed.
        p: one-sided p value of "holds", over all looks; 1 where no test is made.
        smallest: the smallest effect that so many seeds would have found; None for a single seed.
        extra: further figures by name, each `[n]`.
        units: method less baseline of each image for each seed, where images are what varies; else empty.
        seconds: CPU time of all arms and seeds.
        versions: of Python, torch, NumPy and Repertoire.
        commit: of the source; None outside a checkout.
        machine: in words.
        measured: date and time (UTC, ISO 8601).
        built: public names of the components that ran.
        footprint: digests of what it depends on; empty for evidence from before there were any.
        confirmed: when a later version of the code gave the same figures for the first seed; "" if never.
    """

    slug: str
    budget: str
    verdict: Verdict
    statement: str
    metric: str
    arms: list[str]
    data: str
    tier: Tier
    threshold: float
    higher_is_better: bool
    seeds: list[int]
    values: list[list[float]]
    mean: float
    interval: tuple[float, float] | None
    seconds: float
    versions: dict[str, str]
    commit: str | None
    machine: str
    measured: str
    part: str = ""
    kind: Kind = "better"
    strict: bool = True
    overlap: float = 0.0
    exact: bool = False
    points: list[float] = field(default_factory=list)
    reason: str = ""
    trivial: list[float] | None = None
    p: float = 1.0
    smallest: float | None = None
    extra: dict[str, list[float]] = field(default_factory=dict)
    units: list[list[float]] = field(default_factory=list)
    built: list[str] = field(default_factory=list)
    footprint: dict[str, Any] = field(default_factory=dict)
    confirmed: str = ""

    @property
    def name(self) -> str:
        """Slug, or slug and part: `squentropy:calibration`."""
        return f"{self.slug}:{self.part}" if self.part else self.slug

    @property
    def method(self) -> str:
        """Name of what the paper proposes: the first arm, or the last of several."""
        return self.arms[0] if self.kind in ("better", "equivalent", "identity") else self.arms[-1]

    @property
    def baseline(self) -> str:
        """Name of what the method is compared with."""
        return self.arms[1] if self.kind in ("better", "equivalent") else self.arms[0]

    @property
    def differences(self) -> list[float]:
        """The contrast that decides, for each seed, in favour of the method."""
        found = self._contrasts()
        return found[self._deciding(found)]

    @property
    def contrast(self) -> str:
        """What that contrast is, in words: `ours against theirs`, the weakest step of an ordering."""
        if self.kind == "identity":
            return "error"
        if self.kind == "trend":
            return "slope over the arms"
        step = self._deciding(self._contrasts())
        if self.kind == "optimum":
            return f"the best arm between the ends against {self.arms[-step]}"
        if self.kind == "ordering":
            return f"{self.arms[step + 1]} against {self.arms[step]}"
        return f"{self.method} against {self.baseline}"

    @property
    def means(self) -> list[float]:
        """The mean of each arm."""
        return [sum(column) / len(self.values) for column in zip(*self.values, strict=True)]

    def _contrasts(self) -> list[list[float]]:
        sign = 1.0 if self.higher_is_better or self.kind == "identity" else -1.0
        return contrasts(self.kind, [[sign * value for value in row] for row in self.values], self.points)

    def _deciding(self, found: list[list[float]]) -> int:
        """Which of several contrasts decides: that of the stored mean."""
        return min(range(len(found)), key=lambda k: abs(sum(found[k]) / len(found[k]) - self.mean))

    @property
    def confidence(self) -> float:
        """Confidence of the interval."""
        return 1 - NOMINAL * (2 if self.kind == "equivalent" else 1)

    @property
    def effect(self) -> str:
        """The contrast that decides, in favour of the method: `+0.012`. It is 0 where it is rounding alone; of an
        identity it is the largest error, without a sign."""
        return f"{self.mean:.3g}" if self.kind == "identity" else self._signed(self.mean)

    @property
    def span(self) -> str:
        """The interval of the effect, in its direction: `+0.004 to +0.02`; "" for a single seed."""
        if self.interval is None:
            return ""
        low, high = map(self._signed, self.interval)
        if low == high:  # so narrow that three digits do not show it
            low, high = (self._signed(bound, 6) for bound in self.interval)
        return f"{low} to {high}"

    @property
    def asked(self) -> str:
        """What the effect has to be: `at least +0.01`, `more than 0`, `within 0.01 of 0`, `at most 1e-06`."""
        if self.kind == "identity":
            return f"at most {self.threshold:g}"
        if self.kind == "equivalent":
            return f"within {self.threshold:g} of 0"
        return f"{'more than' if self.strict else 'at least'} {f'{self.threshold:+g}' if self.threshold else '0'}"

    def _signed(self, value: float, digits: int = 3) -> str:
        largest = max((abs(each) for row in self.values for each in row), default=0.0)
        return f"{value:+.{digits}g}" if abs(value) > 1e-5 * largest else "0"

    @property
    def sentence(self) -> str:
        """Verdict, effect, data, seeds and cost in one line: `holds on digits (toy data): ...`."""
        return f"{self.verdict} {self.finding[0].lower()}{self.finding[1:]}; {self.seconds / 60:.1f} CPU minutes"

    @property
    def finding(self) -> str:
        """What came out, on what, from how many seeds, and what was asked for, without the verdict and a full stop."""
        counted = "one seed" if len(self.seeds) == 1 else f"{len(self.seeds)} seeds"
        effect = f"a {'largest error' if self.kind == 'identity' else 'difference'} of {self.effect}"
        if self.span:
            effect += f" ({self.confidence:.1%} interval {self.span}; positive favours the method)"
        failed = "the bed failed, " if self.verdict == "no answer" else ""
        why = f": {failed}{self.reason}" if self.reason else ""
        where = f"On {self.data} ({_WORTH[self.tier]})"
        return f"{where}: {self._compared}, {effect} over {counted}; {self.asked} was asked for{why}"

    @property
    def _compared(self) -> str:
        """The metric, and the means of the arms."""
        metric = self.metric if self.higher_is_better or self.kind == "identity" else f"{self.metric} (less is better)"
        named = [f"{mean:.4g} ({arm})" for arm, mean in zip(self.arms, self.means, strict=True)]
        if self.kind in ("better", "equivalent"):
            return f"{metric} {named[0]} against {named[1]}"
        if self.kind == "ordering":
            return f"{metric} in the order claimed {', '.join(named)}; of its steps the weakest decides"
        if self.kind == "identity":
            return metric
        return f"{metric} {', '.join(named)}; {self.contrast}"

    def write(self, folder: Path | None = None) -> Path:
        """Stores the evidence, atomically.

        Args:
            folder: by default the user's own, never the installed package.

        Raises:
            RunError: the folder cannot be written to.
        """
        path = evidence_file(self.slug, self.budget, part=self.part, folder=folder or user_folder())
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, {"format": FORMAT, **dataclasses.asdict(self)})
        except OSError as error:
            raise RunError(f"cannot store the evidence {path}: {error.strerror}; run without storing") from error
        return path


def evidence_file(slug: str, budget: str, *, part: str = "", folder: Path | None = None) -> Path:
    """Path of the evidence of a claim."""
    return (folder or FOLDER) / ".".join([slug, *([part] if part else []), budget, "json"])


def evidence(slug: str, budget: str | None = None, *, part: str = "", folder: Path | None = None) -> Evidence | None:
    """The stored evidence of a paper's claim, or None if there is none.

    Args:
        slug: of the paper's card.
        budget: which evidence; by default that of `full` and, without it, that of `small`.
        part: which claim of the paper; by default the central one.
        folder: where to look; by default the evidence that comes with Repertoire.

    Raises:
        DataError: the file is damaged.
    """
    for name in (budget,) if budget else ("full", "small"):
        path = evidence_file(slug, name, part=part, folder=folder)
        if path.is_file():
            return read_evidence(path)
    return None


def stored_evidence(folder: Path | None = None) -> list[Evidence]:
    """All evidence, by slug and part; where there is evidence at two budgets, that of `full`.

    Raises:
        DataError: a file is damaged.
    """
    names = {path.name.removesuffix(".json").rpartition(".")[0] for path in (folder or FOLDER).glob("*.*.json")}
    found = []
    for name in sorted(names):
        slug, _, part = name.partition(".")
        item = evidence(slug, part=part, folder=folder)
        if item is not None:
            found.append(item)
    return found


def read_evidence(path: Path) -> Evidence:
    """The evidence in a file.

    Raises:
        DataError: the file is damaged, or was written by another version.
    """
    slug = path.name.partition(".")[0]
    again = f"remove it and run: repertoire claims run {slug}"
    try:
        fields: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if fields.pop("format") != FORMAT:
            raise DataError(f"{path} was written by another version of Repertoire; {again}")
        if fields["interval"] is not None:
            fields["interval"] = tuple(fields["interval"])
        found = Evidence(**fields)
        if found.verdict not in VERDICTS:
            raise DataError(f"{path}: the verdict is {found.verdict!r}, expected {', '.join(VERDICTS)}; {again}")
    except DataError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is not evidence ({error}); {again}") from None
    return found

"""Evidence that is there, measured once more: by how much figures move, and whether a change of code moved any."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repertoire.claims._claim import Budget, BudgetName, Claim, Measured, get
from repertoire.claims._evidence import decide, footprint, freshness
from repertoire.claims._harness import Progress, outcomes, run, silent
from repertoire.compare import Backend
from repertoire.errors import ConfigError
from repertoire.papers import Evidence, evidence
from repertoire.statistics import LOOKS

__all__ = ["Again", "again", "measured_of", "refresh"]


@dataclass(frozen=True)
class Again:
    """Change of figures that were measured again.

    Attributes:
        then, now: the stored evidence, and the new.
        moved: mean difference over the seeds that both have, now less then.
        noise: half the width of the stored interval; 0 where there is none.
        equal: whether all figures of those seeds are the same to six digits.
    """

    then: Evidence
    now: Evidence
    moved: float
    noise: float
    equal: bool

    @property
    def agrees(self) -> bool:
        """Whether the figures are the same, or have moved by no more than the noise of their interval."""
        return self.equal or abs(self.moved) <= self.noise

    @property
    def sentence(self) -> str:
        """Sentence that says by how much, and whether that is more than chance explains."""
        name = self.then.name
        if self.equal:
            return f"{name}: the same figures again ({len(self.now.seeds)} seeds)."
        within = "within" if self.agrees else "MORE than"
        return (
            f"{name}: the mean difference moved by {self.moved:+.4g}, {within} the noise of its interval "
            f"({self.noise:.4g}); {self.then.verdict} then, {self.now.verdict} now."
        )


def again(
    name: str,
    budget: BudgetName = "small",
    *,
    workers: int = 1,
    progress: Progress | None = None,
    folder: Path | None = None,
    backend: Backend = "loky",
) -> Again:
    """Measures a claim once more and compares with what is stored; nothing is stored.

    Raises:
        ConfigError: nothing is stored.
        ClaimError: a seed failed.
    """
    claim = get(name)
    then = evidence(claim.slug, budget, part=claim.part, folder=folder)
    if then is None:
        raise ConfigError(
            f"there is no evidence of {name!r} at the budget {budget!r}; run: repertoire claims run {name}"
        )
    now = run(name, budget, store=False, workers=workers, progress=progress, backend=backend)
    common = min(len(then.seeds), len(now.seeds))
    pairs = list(zip(then.differences[:common], now.differences[:common], strict=True))
    moved = math.fsum(new - old for old, new in pairs) / common
    noise = 0.0 if then.interval is None else (then.interval[1] - then.interval[0]) / 2
    return Again(then, now, moved, noise, _same(then.values[:common], now.values[:common]))


def refresh(
    claims: Sequence[Claim],
    budget: BudgetName = "small",
    *,
    folder: Path | None = None,
    workers: int = 1,
    progress: Progress | None = None,
    minutes: float | None = None,
    before: Path | None = None,
) -> Iterator[tuple[Claim, bool]]:
    """Measures the first seed of stale evidence again: equal figures make it fresh, others leave it stale.

    A change of code that changes no figure, of a message or of a name, need not cost a whole measurement. Where the
    evidence is of another kind of processor, whose figures differ in any case, the code `before` the change tells here
    what it comes to here. What is stored is decided anew by the claim as it is now: the correction for an overlap may
    have been mended, or a guard, whose `floor` is measured here for each seed. A verdict that falls for it is stored as
    it comes out where there are twenty seeds, and is left stale where more could decide. Another threshold or kind is
    for new measurements alone.

    Args:
        claims: those whose evidence is stale or aged, of which others are passed over.
        budget: of the evidence.
        folder: where it is, and where it is stored again.
        workers: processes; 1 measures in this one.
        progress: called with a line of text.
        minutes: no claim is begun after so many minutes.
        before: `src` of a checkout in which the evidence was not yet stale. Its figures for the first seed count in the
            place of the stored ones, where these are others.

    Yields:
        Each claim, and whether its evidence is fresh now.
    """
    say, chosen = progress or silent, Budget.named(budget)
    stored = {}
    for claim in claims:
        found = evidence(claim.slug, budget, part=claim.part, folder=folder)
        if found is not None and freshness(found, claim).state != "fresh":
            stored[claim.name] = found
    wanted = [claim for claim in claims if claim.name in stored]
    for state, failure in outcomes(wanted, chosen, workers, silent, minutes, folder, one_seed=True):
        claim, found = state.claim, stored[state.claim.name]
        if failure is not None:
            say(str(failure))
            yield claim, False
            continue
        figures = [claim.values(m) for m in state.measured]
        same, whose = _same(figures, found.values[:1]), ""
        if not same and before is not None and (then := _first_seed(before, found, budget, say)) is not None:
            same, whose = _same(figures, [then]), " as of the code before"
        say(f"{claim.name}: {'the same figures' if same else 'other figures'}{whose} at seed 0")
        if same:
            decided, why = _decided_anew(found, claim, chosen)
            if decided is None:
                say(f"{claim.name}: {why}; measure it in full")
                yield claim, False
                continue
            today = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
            prints = dataclasses.asdict(footprint(claim, state.built))
            # What a claim says of itself may have been worded anew; what it measured is the same.
            dataclasses.replace(
                decided,
                footprint=prints,
                built=sorted(state.built),
                confirmed=today,
                statement=claim.statement,
                metric=claim.metric,
                data=claim.data,
            ).write(folder)
        yield claim, same


def _decided_anew(found: Evidence, claim: Claim, budget: Budget) -> tuple[Evidence | None, str]:
    """The evidence as the claim decides it now, or nothing and why not."""
    for rule in ("kind", "threshold", "strict", "higher_is_better", "exact"):
        if getattr(found, rule) != getattr(claim, rule):
            return None, f"its {rule} was {getattr(found, rule)} and is {getattr(claim, rule)}"
    if tuple(found.arms) != claim.arms or tuple(found.points) != claim.points:
        return None, "its arms are others"
    measured = [measured_of(found, claim, k) for k in range(len(found.seeds))]
    if claim.floor is not None:
        measured = [
            dataclasses.replace(m, trivial=claim.floor_of(budget, seed))
            for m, seed in zip(measured, found.seeds, strict=True)
        ]
    trivial: Any = [m.trivial if m.trivial is not None else claim.trivial for m in measured]
    count = len(measured)
    if any(decide(claim, budget, measured[:look]).verdict != "undecided" for look in LOOKS if look < count):
        return None, "an earlier look decides"
    decision = decide(claim, budget, measured)
    still = decision.verdict == "undecided"
    if still and found.verdict != "undecided" and count < LOOKS[-1]:
        return None, f"{count} seeds do not decide"
    return dataclasses.replace(
        found,
        verdict=decision.verdict,
        reason=decision.reason or (found.reason if still and found.verdict == "undecided" else ""),
        mean=decision.mean,
        interval=decision.interval,
        p=decision.p,
        smallest=decision.smallest,
        overlap=claim.overlap,
        trivial=None if claim.learned is None or None in trivial else trivial,
    ), ""


def measured_of(found: Evidence, claim: Claim, k: int) -> Measured:
    """What a stored seed had measured."""
    values = found.values[k]
    pair = claim.kind in ("better", "equivalent", "identity")
    return Measured(
        values[0] if pair else values[-1],
        values[-1] if pair else values[0],
        {name: each[k] for name, each in found.extra.items()},
        None if found.trivial is None else found.trivial[k],
        () if pair else tuple(values),
        tuple(found.units[k]) if found.units else (),
    )


_BEFORE = """
import json, sys
from pathlib import Path
from repertoire import claims
from repertoire.claims import _harness
slug, part, budget, folder = sys.argv[1:]
claim = claims.get(f"{slug}:{part}" if part else slug)
found = claims.evidence(slug, budget, part=part, folder=Path(folder))
if claims.freshness(found, claim).state == "stale":
    sys.exit("the evidence is stale in the code before, too")
measured = _harness._measure(claim, claims.Budget.named(budget), 0).measured
(Path(folder) / "values").write_text(json.dumps(claim.values(measured)))
"""


def _first_seed(source: Path, found: Evidence, budget: BudgetName, say: Progress) -> list[float] | None:
    """The values of seed 0 by the code of another checkout; None where it cannot tell."""
    with tempfile.TemporaryDirectory() as folder:
        found.write(Path(folder))
        environment = os.environ | {"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", _BEFORE, found.slug, found.part, budget, folder]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            say(f"{found.name}: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}")
            return None
        values: list[float] = json.loads((Path(folder) / "values").read_text())
        return values


def _same(first: Sequence[Sequence[float]], second: Sequence[Sequence[float]]) -> bool:
    pairs = [(a, b) for x, y in zip(first, second, strict=True) for a, b in zip(x, y, strict=True)]
    return all(math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9) for a, b in pairs)

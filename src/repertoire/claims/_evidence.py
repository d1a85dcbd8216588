"""From measurements to evidence, and whether evidence still speaks of the code that is there."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

from repertoire import papers
from repertoire.claims._claim import Budget, Claim, Measured
from repertoire.claims._footprint import TRUNK, Footprint, Freshness, compare_footprints, library
from repertoire.errors import UnknownName
from repertoire.papers import Evidence
from repertoire.statistics import Decision

__all__ = ["components_of", "decide", "footprint", "freshness", "summarise"]


def decide(claim: Claim, budget: Budget, measured: Sequence[Measured]) -> Decision:
    """Decides what the seeds so far say, or that the bed failed, or may have. A smoke run decides nothing."""
    found = claim.decide(measured)
    if budget.name == "smoke":
        return dataclasses.replace(found, verdict="undecided", reason="one seed shows that it runs", p=1.0)
    why = claim.failed_bed(measured)
    if why:
        return dataclasses.replace(found, verdict="no answer", reason=why, p=1.0)
    doubt = claim.doubtful_bed(measured)
    return dataclasses.replace(found, verdict="undecided", reason=doubt, p=1.0) if doubt else found


def components_of(claim: Claim, built: Collection[str]) -> list[str]:
    """Public names of what a claim is about: the components of its card, and those that it had built outside the trunk.

    A rule, say, is what a claim is about where its card lists it; what every run goes through makes evidence aged only.
    """
    try:
        listed: Sequence[str] = papers.get(claim.slug).components
    except UnknownName:  # a claim of the user's own, whose paper is not in the catalogue
        listed = ()
    return sorted({*listed, *(name for name in built if name.split(".")[1] not in TRUNK)})


def footprint(claim: Claim, built: Collection[str]) -> Footprint:
    """Digests of what the evidence of a claim depends on, as the source stands."""
    function = claim.function
    return library().footprint(function.__module__, function.__qualname__, components_of(claim, built))


def freshness(found: Evidence, claim: Claim) -> Freshness:
    """Freshness of evidence: fresh, or what of the claim and its components has changed since.

    >>> from repertoire import claims
    >>> claims.freshness(claims.evidence("supcon"), claims.get("supcon")).state in ("fresh", "aged", "stale")
    True
    """
    source = library()
    now = footprint(claim, found.built)
    then = Footprint(**found.footprint) if found.footprint else None
    places = source.claim_places(claim.function.__module__, claim.function.__qualname__)
    places = places | source.component_places(places, components_of(claim, found.built))
    return compare_footprints(then, now, source.files(places))


def summarise(
    claim: Claim, budget: Budget, measured: Sequence[Measured], seconds: float, built: Collection[str], reason: str = ""
) -> Evidence:
    """Evidence from what the seeds 0, 1, 2, ... gave, in that order.

    Args:
        seconds: CPU time of all of them.
        built: public names of the components that ran.
        reason: why there are no more seeds, where that has to be said.
    """
    import torch

    from repertoire.recipe import describe

    circumstances = describe(torch.device(budget.device))
    decision = decide(claim, budget, measured)
    trivial: Any = [m.trivial if m.trivial is not None else claim.trivial for m in measured]
    machine = circumstances["machine"]
    return Evidence(
        slug=claim.slug,
        part=claim.part,
        budget=budget.name,
        verdict=decision.verdict,
        reason="; ".join(filter(None, (decision.reason, reason))),
        statement=claim.statement,
        metric=claim.metric,
        kind=claim.kind,
        strict=claim.strict,
        arms=list(claim.arms),
        points=list(claim.points),
        data=budget.data or claim.data,
        tier="yours" if budget.data else claim.tier,
        threshold=claim.threshold,
        higher_is_better=claim.higher_is_better,
        overlap=claim.overlap,
        exact=claim.exact,
        seeds=list(range(len(measured))),
        values=[claim.values(m) for m in measured],
        trivial=None if None in trivial else trivial,
        units=[[float(f"{value:.6g}") for value in m.units] for m in measured] if measured[0].units else [],
        mean=decision.mean,
        interval=decision.interval,
        p=decision.p,
        smallest=decision.smallest,
        extra={name: [m.extra[name] for m in measured] for name in measured[0].extra},
        seconds=round(seconds, 1),
        versions={name: circumstances[name] for name in ("python", "torch", "numpy", "repertoire")},
        commit=circumstances["commit"],
        machine=f"{machine}; one thread a seed" if budget.device == "cpu" else machine,
        measured=circumstances["created"],
        built=sorted(built),
        footprint=dataclasses.asdict(footprint(claim, built)),
    )

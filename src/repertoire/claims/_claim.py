"""What a claim is: a function that measures a method and its rivals, and what has to come out."""

from __future__ import annotations

import importlib
import math
import pkgutil
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from repertoire.errors import ConfigError, RepertoireError, UnknownName
from repertoire.papers import Tier
from repertoire.statistics import KINDS, Decision, Kind, contrasts, decide, p_value

if TYPE_CHECKING:
    from repertoire.data import Splits

__all__ = [
    "BUDGETS",
    "PILOT",
    "REDRAWN",
    "Budget",
    "BudgetName",
    "Claim",
    "ClaimError",
    "Measured",
    "claim",
    "entries",
    "get",
    "registered",
]

T = TypeVar("T")
BudgetName = Literal["smoke", "small", "full"]
BUDGETS: tuple[BudgetName, ...] = get_args(BudgetName)

GUARD_LEVEL = 0.05
"""Of the test, to one side, that an arm beats the trivial answer."""

PILOT = 1000
"""The first seed on which beds and thresholds may be tried. Evidence has seeds from 0 on, and never as many."""

_FIRST_DRAW = 100
"""The first draw of a claim whose seeds are several: no seed of another design, up to 20, is drawn again."""

_MOST_DRAWS = (PILOT - _FIRST_DRAW) // 20
"""Of a seed, so that twenty seeds of them end before the pilot's."""


class ClaimError(RepertoireError):
    """A claim could not be measured; nothing was stored."""


@dataclass(frozen=True)
class Budget:
    """Budget of a measurement: how much it may cost.

    Attributes:
        name: "smoke" (three seconds, one seed, only shows that the claim runs), "small" (20 minutes of CPU time at
            most, all arms and seeds included) or "full" (a GPU).
        device: where to compute.
        data: a data source of the user's own to measure on, where the claim permits it; "" for the claim's bed.
    """

    name: BudgetName
    device: str = "cpu"
    data: str = ""

    def __post_init__(self) -> None:
        if self.name not in BUDGETS:
            raise UnknownName("budget", self.name, BUDGETS)

    def pick(self, *, smoke: T, small: T, full: T) -> T:
        """The value for this budget.

        >>> Budget("small").pick(smoke=1, small=10, full=100)
        10
        """
        return {"smoke": smoke, "small": small, "full": full}[self.name]

    def splits(self, bed: str, *, seed: int, **options: Any) -> Splits:
        """The claim's bed, divided by the seed; or the user's own data in its place.

        Args:
            bed: spec of a data source.
            seed: of the division.
            options: of `repertoire.data.load`. Data of the user's own keeps its size, except that photographs come at
                that of the bed, or at 32 pixels.
        """
        from repertoire.data import load

        if not self.data:
            return load(bed, seed=seed, **options)
        return load(self.data, seed=seed, photographs=options.get("size") or 32)

    @classmethod
    def named(cls, name: str, data: str = "") -> Budget:
        """The budget of that name on the device that it is meant for.

        Raises:
            UnknownName: there is none of that name.
            ConfigError: it needs a GPU, and there is none.
        """
        if name not in BUDGETS:
            raise UnknownName("budget", name, BUDGETS)
        if name != "full":
            return cls(name, data=data)
        import torch

        if not torch.cuda.is_available():
            raise ConfigError("budget 'full' needs a CUDA device and there is none here; use the budget 'small'")
        return cls(name, "cuda", data)


@dataclass(frozen=True)
class Measured:
    """Figures of one seed.

    Attributes:
        method: the metric of the paper's method; the error of an identity.
        baseline: the metric of the baseline on the same data and seed.
        extra: further figures to store and show; they decide nothing.
        trivial: what the trivial answer scores on the same data and seed (majority class, raw pixels, random weights,
            whichever is best), for a claim that says by how much its arms must beat it.
        values: the metric of every arm, for a trend, an ordering or an optimum; see :meth:`of`.
        units: method less baseline for each image, where the image is what varies and a seed is a network: the interval
            is then that of a bootstrap of networks and of images within them.
    """

    method: float
    baseline: float = 0.0
    extra: Mapping[str, float] = field(default_factory=dict)
    trivial: float | None = None
    values: Sequence[float] = ()
    units: Sequence[float] = ()

    def __post_init__(self) -> None:
        named = {"method": self.method, "baseline": self.baseline, **self.extra}
        if self.trivial is not None:
            named["trivial"] = self.trivial
        for name, value in (*named.items(), *((f"arm {i}", value) for i, value in enumerate(self.values))):
            if not math.isfinite(value):
                raise ClaimError(f"the measured value {name!r} is {value}; every value must be a finite number")

    @classmethod
    def of(
        cls, values: Sequence[float], extra: Mapping[str, float] | None = None, trivial: float | None = None
    ) -> Measured:
        """The arms of a trend, an ordering or an optimum, in the order of the claim's `arms`.

        >>> Measured.of([0.1, 0.2, 0.4]).values
        (0.1, 0.2, 0.4)
        """
        return cls(values[-1], values[0], extra or {}, trivial, tuple(values))

    @classmethod
    def mean(cls, draws: Sequence[Measured]) -> Measured:
        """Figure for figure the mean of several draws.

        Raises:
            ClaimError: the unit is the image, whose differences are not to be averaged.

        Example:
            >>> Measured.mean([Measured(0.5, 0.25), Measured(1.0, 0.75)])
            Measured(method=0.75, baseline=0.5, extra={}, trivial=None, values=(), units=())
        """
        if any(draw.units for draw in draws):
            raise ClaimError("draws are averaged, and differences of images are not to be: take draws=1")
        known = [draw.trivial for draw in draws if draw.trivial is not None]
        return cls(
            _mean([draw.method for draw in draws]),
            _mean([draw.baseline for draw in draws]),
            {name: _mean([draw.extra[name] for draw in draws]) for name in draws[0].extra},
            _mean(known) if known else None,
            tuple(_mean(column) for column in zip(*(draw.values for draw in draws), strict=True)),
        )


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


Function = Callable[[Budget, int], Measured]
Floor = Callable[[Budget, int], float]


@dataclass(frozen=True)
class Claim:
    """A check of what a paper asserts.

    Attributes:
        slug: of the paper's card.
        part: which of the paper's claims it is; "" for the central one.
        statement: the sentence that is checked, in our words.
        metric: what is measured, "test accuracy".
        arms: what is compared, in the order in which it is measured.
        data: what it is measured on.
        tier: how much that is worth: "drawn", "toy", "real, small" or "paper".
        threshold: how much better than the baseline the method has to be, in units of the metric; the margin of an
            equivalence; the tolerance of an identity.
        kind: how it is decided, see `repertoire.statistics.contrasts`.
        strict: more than the threshold, rather than at least.
        higher_is_better: whether a larger metric is better.
        points: where the arms of a trend stand.
        learned: by how much the arms must beat the trivial answer; None where nothing is learned.
        learned_by: which of them: "all", or only the "best", where the claim is about what makes an arm fail.
        trivial: what the trivial answer scores, where that is the same for every seed.
        floor: measures the trivial answer of a seed, apart from the arms; None where they measure it themselves.
        guard: what the trivial answer is, or why none is asked for, in a few words, where `floor` does not say it.
        ceiling: the best value there can be, where the baseline may come too near to it.
        effect: the smallest effect of interest, which must fit below the ceiling.
        overlap: test samples for each training sample where seeds divide one finite set anew, else 0.
        exact: nothing is left to chance: one seed decides.
        own_data: whether its arms can be measured on a user's data.
        draws: of how many draws a seed is the mean, where one alone is cheap and says little; none of a smoke run. Seed
            5 of 4 draws has the draws 120 to 123: from 100 on, which no seed is that is itself one draw.
        function: measures one draw.
    """

    slug: str
    statement: str
    metric: str
    arms: tuple[str, ...]
    data: str
    tier: Tier
    threshold: float
    function: Function
    part: str = ""
    kind: Kind = "better"
    strict: bool = True
    higher_is_better: bool = True
    points: tuple[float, ...] = ()
    learned: float | None = None
    learned_by: Literal["all", "best"] = "all"
    trivial: float | None = None
    floor: Floor | None = None
    guard: str = ""
    ceiling: float | None = None
    effect: float = 0.0
    overlap: float = 0.0
    exact: bool = False
    own_data: bool = False
    draws: int = 1

    def __call__(self, budget: Budget, seed: int) -> Measured:
        found = [self.function(budget, draw) for draw in self._draws(budget, seed)]
        measured = found[0] if len(found) == 1 else Measured.mean(found)
        return measured if self.floor is None else replace(measured, trivial=self.floor_of(budget, seed))

    def floor_of(self, budget: Budget, seed: int) -> float | None:
        """What the trivial answer of a seed scores; None where it is not measured apart from the arms."""
        if self.floor is None:
            return None
        return _mean([self.floor(budget, draw) for draw in self._draws(budget, seed)])

    def _draws(self, budget: Budget, seed: int) -> range:
        """The draws that a seed is the mean of."""
        if self.draws == 1 or budget.name == "smoke":
            return range(seed, seed + 1)
        first = _FIRST_DRAW + seed * self.draws if seed < PILOT else PILOT + (seed - PILOT) * self.draws
        return range(first, first + self.draws)

    @property
    def name(self) -> str:
        """Slug, or slug and part: `squentropy:calibration`."""
        return f"{self.slug}:{self.part}" if self.part else self.slug

    @property
    def method(self) -> str:
        """Name of what the paper proposes, in a few words."""
        return self.arms[0] if self.kind in ("better", "equivalent", "identity") else self.arms[-1]

    @property
    def baseline(self) -> str:
        """Name of what it is compared with, in a few words."""
        return self.arms[1] if self.kind in ("better", "equivalent") else self.arms[0]

    def values(self, measured: Measured) -> list[float]:
        """The metric of every arm."""
        if self.kind == "identity":
            return [measured.method]
        if self.kind in ("better", "equivalent"):
            return [measured.method, measured.baseline]
        if len(measured.values) != len(self.arms):
            raise ClaimError(
                f"{len(measured.values)} values were measured for the {len(self.arms)} arms of {self.name}"
            )
        return list(measured.values)

    def decide(self, measured: Sequence[Measured]) -> Decision:
        """Verdict of the seeds so far."""
        sign = 1.0 if self.higher_is_better or self.kind == "identity" else -1.0
        rows = [[sign * value for value in self.values(m)] for m in measured]
        found = contrasts(self.kind, rows, self.points)
        units = [[sign * value for value in m.units] for m in measured]
        return decide(
            found,
            self.threshold,
            kind=self.kind,
            strict=self.strict,
            overlap=self.overlap,
            exact=self.exact,
            clusters=units if all(units) and self.kind in ("better", "equivalent") else (),
        )

    def failed_bed(self, measured: Sequence[Measured]) -> str:
        """Reason why the bed could not have shown the effect: an arm that did not learn, no room, or two arms that are
        one; "" where it could."""
        sign = 1.0 if self.higher_is_better else -1.0
        rows = [self.values(m) for m in measured]
        means = [sign * math.fsum(row[k] for row in rows) / len(rows) for k in range(len(rows[0]))]
        for arm, mean, trivial, _ in self._guarded(measured):
            if mean < trivial + (self.learned or 0.0):
                by = f" by {self.learned:g}" if self.learned else ""
                return (
                    f"{arm} scores {sign * mean:.3g}, which does not beat the trivial answer's {sign * trivial:.3g}{by}"
                )
        if self.ceiling is not None:
            baseline = means[1] if self.kind in ("better", "equivalent") else means[0]
            if sign * self.ceiling - baseline < self.effect:
                return (
                    f"{self.baseline} scores {sign * baseline:.3g} of {self.ceiling:g}, which leaves no room for an "
                    f"effect of {self.effect:g}"
                )
        if len(rows) > 1 and not self.exact:
            for (one, first), (other, second) in combinations(zip(self.arms, zip(*rows, strict=True), strict=True), 2):
                if first == second:
                    return (
                        f"{one} and {other} score the same, to the last bit, on each of {len(rows)} seeds: they are "
                        "one computation here, or the metric cannot tell them apart"
                    )
        return ""

    def doubtful_bed(self, measured: Sequence[Measured]) -> str:
        """Reason why seeds leave open whether an arm that has to beat the trivial answer does; "" where they do not.

        Where the mean beats it, a t test of the paired differences has to find that no chance, at 5 % to one side.
        What is beaten within the noise is no proof that anything was learned, and another seed may tell.
        """
        sign = 1.0 if self.higher_is_better else -1.0
        for arm, mean, trivial, differences in self._guarded(measured):
            one_sided = p_value(differences, overlap=self.overlap) / 2 if mean > trivial else 1.0
            if len(differences) > 1 and not self.exact and one_sided > GUARD_LEVEL:
                return (
                    f"{len(differences)} seeds leave open whether {arm} beats the trivial answer: "
                    f"{sign * mean:.3g} against {sign * trivial:.3g}"
                )
        return ""

    def _guarded(self, measured: Sequence[Measured]) -> list[tuple[str, float, float, list[float]]]:
        """The arms that have to beat the trivial answer, with their mean, its mean, and the difference of each seed;
        all with the sign that makes larger better."""
        if self.learned is None:
            return []
        sign = 1.0 if self.higher_is_better else -1.0
        trivial = [sign * value for value in self._trivial(measured)]
        rows = [[sign * value for value in self.values(m)] for m in measured]
        found = [
            (arm, _mean(column), _mean(trivial), [one - other for one, other in zip(column, trivial, strict=True)])
            for arm, column in zip(self.arms, zip(*rows, strict=True), strict=True)
        ]
        return found if self.learned_by == "all" else [max(found, key=lambda guarded: guarded[1])]

    def asked(self, trivial: Sequence[float] | None = None) -> str:
        """Sentence that says what the arms have to beat before any difference counts; "" where a claim does not say.

        Args:
            trivial: what the trivial answer scored, of each seed.
        """
        if self.learned is None:
            if self.guard.startswith("none: "):
                return f"No trivial answer is asked for: {self.guard.removeprefix('none: ')}."
            return f"What guards the comparison: {self.guard}." if self.guard else ""
        words = self.guard or (_RAW if self.floor is not None else "the trivial answer that is measured beside them")
        known = trivial if trivial is not None else [] if self.trivial is None else [self.trivial]
        which = "every" if self.learned_by == "all" else "the best"
        who = f"Before a difference counts, the mean of {which} arm compared has to"
        by = f" by {self.learned:g} or more" if self.learned else ""
        if not known:
            return f"{who} beat {words}{by}, and by more than the noise of the seeds."
        # The words may be a sentence of their own, and stand last.
        bar = f"{_mean(known):.3g}{by}, and by more than the noise of the seeds"
        return f"{who} beat {bar}. That is the score of {words}."

    def _trivial(self, measured: Sequence[Measured]) -> list[float]:
        """What the trivial answer scored, of each seed."""
        if self.trivial is not None:
            return [self.trivial] * len(measured)
        values = [m.trivial for m in measured if m.trivial is not None]
        if len(values) < len(measured):
            raise ClaimError(
                f"claim {self.name!r} must beat a trivial answer and does not measure it: give floor= or trivial="
            )
        return values


#: What a floor is where the claim has no other words for it.
_RAW = (
    "the inputs as they come (the best of their class means, their five nearest neighbours and the most frequent class)"
)

#: Words that say what a bed is worth, where the claim does not.
_TIERS: tuple[tuple[str, Tier], ...] = (
    (r"breast cancer|wine|diabetes", "real, small"),
    (r"\bdigits?\b", "toy"),
)

#: Test samples for each training sample where every seed divides one set anew, as `repertoire.data.load` does.
REDRAWN = 0.2 / 0.7

_REGISTRY: dict[str, Claim] = {}


def claim(
    slug: str,
    *,
    statement: str,
    metric: str,
    method: str = "",
    baseline: str = "",
    arms: Sequence[str] = (),
    data: str = "",
    bed: str = "",
    tier: Tier | None = None,
    threshold: float = 0.0,
    part: str = "",
    kind: Kind = "better",
    strict: bool = True,
    higher_is_better: bool = True,
    points: Sequence[float] = (),
    learned: float | None = None,
    learned_by: Literal["all", "best"] = "all",
    trivial: float | None = None,
    floor: Floor | None = None,
    guard: str = "",
    ceiling: float | None = None,
    effect: float | None = None,
    overlap: float | None = None,
    exact: bool = False,
    own_data: bool = False,
    draws: int = 1,
) -> Callable[[Function], Claim]:
    """Decorator that turns a function `(budget, seed) -> Measured` into a claim of a paper.

    The threshold is written before the first measurement and not touched afterwards. Bed, schedule and grid are settled
    on pilot seeds, from 1000 on (`repertoire claims pilot SLUG`); evidence has seeds from 0 on: 5, and 10 and 20 where
    the first do not decide.

    Args:
        slug: of the paper's card.
        statement, metric, threshold, kind, strict, higher_is_better, points: see `Claim`.
        learned, learned_by, trivial, floor, guard, exact, own_data: see `Claim`.
        draws: of how many draws a seed is the mean; 1 by default.
        method, baseline: the arms of most kinds, in a few words.
        arms: those of a trend, an ordering or an optimum, in the order in which they are measured.
        data: what it is measured on, in words; not needed with a named bed.
        bed: name of a bed of `repertoire.claims.beds`, which says its words and its tier.
        tier: of the data; by default "toy" where the words name digits and "drawn" otherwise.
        part: which claim of the paper; "" for the central one.
        ceiling: the best value there can be. Give `effect` with it unless the threshold is the smallest effect.
        effect: the smallest effect of interest; by default the threshold.
        overlap: test samples for each training sample; by default that of digits for digits, which are divided anew by
            every seed, and 0 otherwise.

    Raises:
        ValueError: the claim exists already, or what it says of itself does not fit.

    Example:
        >>> from repertoire.claims import Budget, Claim, Measured
        >>> def larger(budget: Budget, seed: int) -> Measured:
        ...     return Measured(method=2.0 + seed, baseline=1.0)
        >>> check = Claim("two", "Two exceeds one.", "value", ("two", "one"), "none", "drawn", 0.0, larger)
        >>> check.decide([check(Budget("small"), seed) for seed in range(5)]).verdict
        'holds'
    """
    chosen = tuple(arms) or ((method,) if kind == "identity" else (method, baseline))
    label = f"{slug}:{part}" if part else slug
    if kind not in KINDS:
        raise ValueError(f"claim {label!r}: the kind is {kind!r}; expected one of {', '.join(KINDS)}")
    if not all(chosen):
        raise ValueError(f"claim {label!r}: name its arms, by method= and baseline= or by arms=")
    if kind == "trend" and len(points) != len(chosen):
        raise ValueError(f"claim {label!r}: a trend over {len(chosen)} arms needs as many points, found {len(points)}")
    if kind in ("equivalent", "identity") and threshold <= 0:
        raise ValueError(f"claim {label!r}: an {kind} claim needs a margin above 0, found {threshold}")
    smallest = effect if effect is not None else max(threshold, 0.0)
    if ceiling is not None and not smallest > 0:
        raise ValueError(f"claim {label!r}: a ceiling needs the smallest effect of interest: give effect=")
    if floor is not None and (learned is None or trivial is not None):
        raise ValueError(f"claim {label!r}: a floor needs learned=, and takes the place of trivial=")
    if bed:
        from repertoire.claims import beds

        named = beds.get(bed)
        data, tier = data or named.title, tier or named.tier
    if not data:
        raise ValueError(f"claim {label!r}: say what it is measured on, by data= or bed=")
    worth = tier if tier is not None else _guessed(data)
    if not 1 <= draws <= _MOST_DRAWS or (exact and draws > 1):
        raise ValueError(
            f"claim {label!r}: draws is {draws}; expected 1 to {_MOST_DRAWS}, and 1 where one seed decides"
        )
    if draws > 1 and (overlap or 0.0) > 0:
        raise ValueError(f"claim {label!r}: draws of one finite set overlap, and their mean says less than it seems to")
    if draws > 1:
        data = f"{data}; a seed is the mean of {draws} draws"
    shared = overlap if overlap is not None else REDRAWN if worth == "toy" and not exact else 0.0

    def decorate(function: Function) -> Claim:
        entry = Claim(
            slug=slug,
            statement=statement,
            metric=metric,
            arms=chosen,
            data=data,
            tier=worth,
            threshold=threshold,
            function=function,
            part=part,
            kind=kind,
            strict=strict,
            higher_is_better=higher_is_better,
            points=tuple(points),
            learned=learned,
            learned_by=learned_by,
            trivial=trivial,
            floor=floor,
            guard=guard,
            ceiling=ceiling,
            effect=smallest,
            overlap=shared,
            exact=exact,
            own_data=own_data,
            draws=draws,
        )
        existing = _REGISTRY.get(label)
        if existing is not None and _place(existing.function) != _place(function):
            raise ValueError(f"{label!r} already has a claim, {'.'.join(_place(existing.function))}")
        _REGISTRY[label] = entry
        return entry

    return decorate


def _guessed(data: str) -> Tier:
    """What a bed is worth, by the words for it."""
    for words, tier in _TIERS:
        if re.search(words, data):
            return tier
    return "drawn"


def registered() -> dict[str, Claim]:
    """The claims whose modules have been imported, by name."""
    return dict(_REGISTRY)


def _place(function: Function) -> tuple[str, str]:
    return function.__module__, function.__qualname__


def entries() -> list[Claim]:
    """All claims, by name. Imports the modules that hold them."""
    package = importlib.import_module("repertoire.claims")
    for module in pkgutil.walk_packages(package.__path__, "repertoire.claims."):
        if "._" not in module.name and not module.name.startswith("repertoire.claims.beds"):
            importlib.import_module(module.name)
    return [entry for _, entry in sorted(_REGISTRY.items())]


def get(name: str) -> Claim:
    """The claim of that slug, or of that slug and part: `squentropy:calibration`.

    Raises:
        UnknownName: there is none; the message suggests the nearest that there is.
    """
    known = {entry.name: entry for entry in entries()}
    if name not in known:
        raise UnknownName("claim", name, list(known))
    return known[name]

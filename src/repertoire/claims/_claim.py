"""What a claim is: a function that measures a method and its baseline, and what has to come out."""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import math
import pkgutil
import re
import textwrap
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar, get_args

from repertoire.errors import ConfigError, RepertoireError, UnknownName

__all__ = [
    "BUDGETS",
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


class ClaimError(RepertoireError):
    """A claim could not be measured; nothing was stored."""


@dataclass(frozen=True)
class Budget:
    """How much a measurement may cost.

    Attributes:
        name: "smoke" (three seconds, one seed, only shows that the claim runs), "small" (three minutes on two cores,
            all seeds and the baseline included) or "full" (a GPU).
        device: where to compute.
    """

    name: BudgetName
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.name not in BUDGETS:
            raise UnknownName("budget", self.name, BUDGETS)

    def pick(self, *, smoke: T, small: T, full: T) -> T:
        """The value for this budget.

        >>> Budget("small").pick(smoke=1, small=10, full=100)
        10
        """
        return {"smoke": smoke, "small": small, "full": full}[self.name]

    @classmethod
    def named(cls, name: str) -> Budget:
        """The budget of that name on the device that it is meant for.

        Raises:
            UnknownName: there is none of that name.
            ConfigError: it needs a GPU, and there is none.
        """
        if name not in BUDGETS:
            raise UnknownName("budget", name, BUDGETS)
        if name != "full":
            return cls(name)
        import torch

        if not torch.cuda.is_available():
            raise ConfigError("budget 'full' needs a CUDA device and there is none here; use the budget 'small'")
        return cls(name, "cuda")


@dataclass(frozen=True)
class Measured:
    """What one seed gave.

    Attributes:
        method: the metric of the paper's method.
        baseline: the metric of the baseline on the same data and seed.
        extra: further figures to store and show; they decide nothing.
    """

    method: float
    baseline: float
    extra: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in {"method": self.method, "baseline": self.baseline, **self.extra}.items():
            if not math.isfinite(value):
                raise ClaimError(f"the measured value {name!r} is {value}; every value must be a finite number")


Function = Callable[[Budget, int], Measured]


@dataclass(frozen=True)
class Claim:
    """A check of what a paper asserts.

    Attributes:
        slug: of the paper's card.
        statement: the sentence that is checked, in our words.
        metric: what is measured, "test accuracy".
        method: what the paper proposes, in a few words.
        baseline: what it is compared with, in a few words.
        data: what it is measured on.
        threshold: how much better than the baseline the method has to be, in units of the metric.
        higher_is_better: whether a larger metric is better.
        seeds: number of seeds for each budget.
        function: measures one seed.
    """

    slug: str
    statement: str
    metric: str
    method: str
    baseline: str
    data: str
    threshold: float
    higher_is_better: bool
    seeds: Mapping[str, int]
    function: Function

    def __call__(self, budget: Budget, seed: int) -> Measured:
        return self.function(budget, seed)

    def difference(self, measured: Measured) -> float:
        """By how much the method is better, negative where it is worse."""
        gain = measured.method - measured.baseline
        return gain if self.higher_is_better else -gain

    @property
    def fingerprint(self) -> str:
        """Changes whenever the code of the claim, of a helper of this package that it calls, or a constant does.

        Evidence with another fingerprint is stale: it was measured by another program.
        """
        digest = hashlib.sha256(f"{self.threshold!r} {self.higher_is_better}".encode())
        for piece in _sources(self.function, set()):
            digest.update(piece.encode())
        return digest.hexdigest()[:16]


#: Modules whose functions and classes are part of the claims that call them.
_HELPERS = re.compile(r"repertoire\.claims\.(_training|[a-z][\w.]*)")


def _sources(function: Callable[..., object], seen: set[object]) -> Iterator[str]:
    """The source of a function, and of the helpers and constants of the claims' modules that it refers to."""
    if function in seen:
        return
    seen.add(function)
    yield _code(inspect.getsource(function))
    if not isinstance(function, types.FunctionType):
        return
    for name in sorted(_names(function.__code__)):
        value = function.__globals__.get(name)
        if inspect.isfunction(value) or inspect.isclass(value):
            if value.__module__ == function.__module__ or _HELPERS.fullmatch(value.__module__):
                yield from _sources(value, seen)
        elif name.isupper() and name in function.__globals__:
            yield f"{name}={value!r}"


def _code(source: str) -> str:
    """A function's code without what says nothing of what it does: comments, docstrings, layout."""
    tree = ast.parse(textwrap.dedent(source))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def _names(code: types.CodeType) -> set[str]:
    """The global names that a function and the functions inside it refer to."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _names(constant)
    return names


_REGISTRY: dict[str, Claim] = {}


def claim(
    slug: str,
    *,
    statement: str,
    metric: str,
    method: str,
    baseline: str,
    data: str,
    threshold: float,
    higher_is_better: bool = True,
    seeds: Mapping[str, int] | None = None,
) -> Callable[[Function], Claim]:
    """Decorator that turns a function `(budget, seed) -> Measured` into the claim of a paper.

    The threshold is written before the first measurement and not touched afterwards.

    Args:
        slug: of the paper's card.
        statement, metric, method, baseline, data, threshold, higher_is_better: see `Claim`.
        seeds: number of seeds for each budget; by default one for smoke and five for the others.

    Raises:
        ValueError: the paper has a claim already, or a budget that decides has fewer than three seeds.

    Example:
        >>> from repertoire.claims import Budget, Claim, Measured
        >>> def larger(budget: Budget, seed: int) -> Measured:
        ...     return Measured(method=2.0 + seed, baseline=1.0)
        >>> check = Claim("two", "Two exceeds one.", "value", "two", "one", "none", 0.0, True, {"small": 3}, larger)
        >>> check.difference(check(Budget("small"), 0))
        1.0
    """
    counts = {"smoke": 1, "small": 5, "full": 5, **(seeds or {})}
    few = [name for name in BUDGETS if counts[name] < (1 if name == "smoke" else 3)]
    if few or counts.keys() - set(BUDGETS):
        raise ValueError(f"claim {slug!r}: seeds are {counts}; expected smoke >= 1, small >= 3 and full >= 3")

    def decorate(function: Function) -> Claim:
        entry = Claim(slug, statement, metric, method, baseline, data, threshold, higher_is_better, counts, function)
        existing = _REGISTRY.get(slug)
        if existing is not None and _place(existing.function) != _place(function):
            raise ValueError(f"paper {slug!r} already has a claim, {'.'.join(_place(existing.function))}")
        _REGISTRY[slug] = entry
        return entry

    return decorate


def registered() -> dict[str, Claim]:
    """The claims whose modules have been imported."""
    return dict(_REGISTRY)


def _place(function: Function) -> tuple[str, str]:
    return function.__module__, function.__qualname__


def entries() -> list[Claim]:
    """All claims, by slug. Imports the modules that hold them."""
    package = importlib.import_module("repertoire.claims")
    for module in pkgutil.walk_packages(package.__path__, "repertoire.claims."):
        if "._" not in module.name and not module.name.startswith("repertoire.claims.beds"):
            importlib.import_module(module.name)
    return [entry for _, entry in sorted(_REGISTRY.items())]


def get(slug: str) -> Claim:
    """The claim of a paper.

    Raises:
        UnknownName: the paper has no claim; the message suggests the nearest that has.
    """
    known = {entry.slug: entry for entry in entries()}
    if slug not in known:
        raise UnknownName("claim", slug, list(known))
    return known[slug]

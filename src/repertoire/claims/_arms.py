"""Arms that several claims share are measured once, and kept as long as their code is the same."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import hashlib
import inspect
import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ParamSpec

from repertoire import registry
from repertoire.claims._claim import Budget
from repertoire.claims._footprint import library
from repertoire.files import write_json

__all__ = ["Ledger", "arm", "recording"]

P = ParamSpec("P")


class Ledger:
    """Cost of a seed, and the components that it had built.

    Attributes:
        built: public names of the components.
        saved: CPU seconds that arms took when they were measured, and that were not spent again.
    """

    def __init__(self) -> None:
        self.built: set[str] = set()
        self.saved = 0.0


_LEDGER: contextvars.ContextVar[Ledger | None] = contextvars.ContextVar("ledger", default=None)


@contextlib.contextmanager
def recording() -> Iterator[Ledger]:
    """Notes which components the registry hands out meanwhile."""
    ledger = Ledger()

    def note(entry: registry.Entry) -> None:
        ledger.built.add(entry.dotted)

    token = _LEDGER.set(ledger)
    registry.WATCHERS.append(note)
    try:
        yield ledger
    finally:
        registry.WATCHERS.remove(note)
        _LEDGER.reset(token)


def arm(function: Callable[P, Mapping[str, float]]) -> Callable[P, dict[str, float]]:
    """Keeps what an arm gives: a function of budget, seed and options that gives figures by name.

    A baseline that ten claims share is trained once. What is kept counts as long as the code of the arm and of every
    component that it had built is the same, and so are the versions of torch and of the arguments. Its CPU time counts
    towards the cost of every claim that uses it.

    Example:
        >>> from repertoire.claims import Budget, arm
        >>> @arm
        ... def plain(budget: Budget, seed: int) -> dict[str, float]:
        ...     return {"accuracy": 0.5 + seed}
        >>> plain(Budget("smoke"), seed=1)
        {'accuracy': 1.5}
    """

    @functools.wraps(function)
    def measured(*args: P.args, **kwargs: P.kwargs) -> dict[str, float]:
        bound = inspect.signature(function).bind(*args, **kwargs)
        bound.apply_defaults()
        budget = next((value for value in bound.arguments.values() if isinstance(value, Budget)), None)
        # A smoke run has to show that the arm runs; what is defined in no file of the package has no footprint.
        code = None if budget is None or budget.name == "smoke" or budget.data else _code(function, ())
        if code is None:
            return dict(function(*args, **kwargs))
        path = _path(function, bound.arguments)
        outer = _LEDGER.get()
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            kept = json.loads(path.read_text(encoding="utf-8"))
            if kept["code"] == _code(function, kept["built"]):
                if outer is not None:
                    outer.built.update(kept["built"])
                    outer.saved += kept["seconds"]
                return {name: float(value) for name, value in kept["values"].items()}
        started = time.process_time()
        with recording() as ledger:
            values = {name: float(value) for name, value in function(*args, **kwargs).items()}
        seconds = time.process_time() - started + ledger.saved
        if outer is not None:
            outer.built.update(ledger.built)
            outer.saved += ledger.saved
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            built = sorted(ledger.built)
            write_json(path, {"code": _code(function, built), "built": built, "seconds": seconds, "values": values})
        return values

    return measured


def _code(function: Callable[..., Any], built: Any) -> str | None:
    """One digest of the arm's code, of the components that it had built and of the trunk; None without a file."""
    source = library()
    module, name = function.__module__, function.__qualname__
    if source.find(module, name) is None:
        return None
    found = source.footprint(module, name, built)
    return hashlib.sha256(repr((found.claim, found.components, found.trunk)).encode()).hexdigest()[:16]


def _path(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    import torch

    from repertoire.data import cache_directory

    name = f"{function.__module__}.{function.__qualname__} {sorted(arguments.items())!r} torch {torch.__version__}"
    return cache_directory() / "arms" / f"{hashlib.sha256(name.encode()).hexdigest()[:24]}.json"

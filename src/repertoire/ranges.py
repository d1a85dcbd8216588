"""Ranges of options: written once, in the signature, and checked alike for functions and for modules.

    @checked
    def focal_loss(logits, targets, *, gamma: Annotated[float, AtLeast(0)] = 2.0): ...

What is annotated with a range is checked whenever the function is called, and so are options of a `Literal` type. What
several options must fulfil together is a function of them: `@checked(also=function)`.
"""

from __future__ import annotations

import inspect
import math
import types
import typing
from collections.abc import Callable
from functools import wraps
from typing import Any, Literal, TypeVar, overload

from repertoire.errors import ConfigError

__all__ = ["AtLeast", "Between", "Finite", "Positive", "Range", "Share", "checked", "checked_with"]

F = TypeVar("F", bound=Callable[..., Any])


class Range:
    """A range of finite numbers, to stand in `Annotated`.

    Args:
        low, high: the bounds; without, there is none.
        ends: which of the bounds belong to the range: "[]", "[)", "(]" or "()".
    """

    def __init__(self, low: float = -math.inf, high: float = math.inf, ends: str = "[]") -> None:
        self.low, self.high, self.ends = low, high, ends

    @property
    def words(self) -> str:
        """The range, to go on after "must"."""
        if self.high < math.inf:
            return f"lie in {self.ends[0]}{_short(self.low)}, {_short(self.high)}{self.ends[1]}"
        if self.low == -math.inf:
            return "be a finite number"
        if self.ends[0] == "[":
            return f"be {_short(self.low)} or more"
        return "be positive" if self.low == 0 else f"be more than {_short(self.low)}"

    def __contains__(self, value: float) -> bool:
        above = value >= self.low if self.ends[0] == "[" else value > self.low
        below = value <= self.high if self.ends[1] == "]" else value < self.high
        return above and (below or self.high == math.inf)

    def __repr__(self) -> str:
        named = {(0.0, math.inf, "()"): "Positive", (0.0, 1.0, "[]"): "Share", (-math.inf, math.inf, "[]"): "Finite"}
        if (self.low, self.high, self.ends) in named:
            return named[self.low, self.high, self.ends]
        if self.high == math.inf and self.ends[0] == "[":
            return f"AtLeast({_short(self.low)})"
        return f"Between({_short(self.low)}, {_short(self.high)}, {self.ends!r})"


class AtLeast(Range):
    """Numbers from a bound on."""

    def __init__(self, low: float) -> None:
        super().__init__(low)


class Between(Range):
    """Numbers between two bounds."""

    def __init__(self, low: float, high: float, ends: str = "[]") -> None:
        super().__init__(low, high, ends)


Finite = Range()
"""Any finite number."""
Positive = Range(0.0, ends="()")
"""Numbers above 0."""
Share = Between(0.0, 1.0)
"""Numbers from 0 to 1, both included."""


def _short(value: float) -> str:
    for times, name in ((math.pi / 2, "pi / 2"), (math.pi, "pi")):
        if value == times:
            return name
    return f"{value:g}"


@overload
def checked(function: F, /) -> F: ...
@overload
def checked(*, also: Callable[..., None]) -> Callable[[F], F]: ...
def checked(function: Any = None, /, *, also: Callable[..., None] | None = None) -> Any:
    """Decorator of a function whose options are checked when it is called.

    Args:
        function: what to decorate.
        also: called with those of the options that it has parameters for, and raises `ConfigError` where they do not go
            together.

    Raises:
        ConfigError: by the decorated function, when an option is out of its range: names the option, says what was
            found and what was expected. Tensors, which would have to be waited for, and None are not looked at.

    Example:
        >>> from typing import Annotated
        >>> from repertoire.ranges import Positive, checked
        >>> @checked
        ... def scaled(x: float, temperature: Annotated[float, Positive] = 1.0) -> float:
        ...     return x / temperature
        >>> scaled(1.0, temperature=0.0)
        Traceback (most recent call last):
        ...
        repertoire.errors.ConfigError: temperature must be positive, found 0.0
    """
    if function is None:
        return lambda decorated: checked_with(decorated, also)
    return checked_with(function, None)


def checked_with(function: Callable[..., Any], also: Callable[..., None] | None) -> Callable[..., Any]:
    """`checked` as a plain call, for functions that are made."""
    signature = inspect.signature(function)
    rules = _rules(function, signature)
    asked = tuple((n, signature.parameters[n].default) for n in inspect.signature(also).parameters) if also else ()
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    places = {p.name: i for i, p in enumerate(signature.parameters.values()) if p.kind in positional}
    if not rules and also is None:
        return function

    @wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        for name, rule in rules:
            if name in kwargs:
                rule(name, kwargs[name])
            elif places.get(name, len(args)) < len(args):
                rule(name, args[places[name]])
        if also is not None:
            given = {}
            for name, default in asked:
                place = places.get(name, len(args))
                given[name] = kwargs.get(name, default) if place >= len(args) else args[place]
            also(**given)
        return function(*args, **kwargs)

    wrapper.__dict__["also"] = also
    return wrapper


Rule = Callable[[str, Any], None]


def _rules(function: Callable[..., Any], signature: inspect.Signature) -> tuple[tuple[str, Rule], ...]:
    found = []
    names = getattr(inspect.unwrap(function), "__globals__", {})
    for name, parameter in signature.parameters.items():
        annotation = parameter.annotation
        if isinstance(annotation, str):
            try:
                annotation = eval(annotation, names)
            except NameError:  # a type that only the type checker imports has no range
                if "Annotated" in annotation:
                    raise
                continue
        if (rule := _rule(annotation)) is not None:
            found.append((name, rule))
    return tuple(found)


def _rule(annotation: Any) -> Rule | None:
    """What to check of a value of this type; None for nothing."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        parts = [part for part in typing.get_args(annotation) if part is not type(None)]
        if len(parts) > 1:
            # Of a choice between types only numbers have a range: a literal is one of several things that may be given.
            parts = [part for part in parts if typing.get_origin(part) is not Literal]
        rules = [rule for rule in map(_rule, parts) if rule is not None]
        return rules[0] if rules else None
    if typing.get_origin(annotation) is Literal:
        return _one_of(typing.get_args(annotation))
    if typing.get_origin(annotation) is typing.Annotated:
        kind, *notes = typing.get_args(annotation)
        ranges = [note for note in notes if isinstance(note, Range)]
        if ranges:
            several = typing.get_origin(kind) in (tuple, list)
            whole = int in typing.get_args(kind) if several else kind is int
            return _within(ranges[0], whole, several)
    return None


def _one_of(values: tuple[Any, ...]) -> Rule:
    shown = [repr(value) for value in values]
    words = " or ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else shown[0]

    def check(name: str, value: Any) -> None:
        if value is not None and value not in values:
            raise ConfigError(f"{name} must be {words}, found {value!r}")

    return check


def _within(range_: Range, whole: bool, several: bool) -> Rule:
    words = "be positive" if whole and (range_.low, range_.high) == (1, math.inf) else range_.words

    def check(name: str, value: Any) -> None:
        if value is None or hasattr(value, "requires_grad"):
            return
        if several and isinstance(value, list | tuple):
            for each in value:
                check(name, each)
            return
        if not isinstance(value, int | float):
            if isinstance(value, str) or not hasattr(value, "__float__"):
                raise ConfigError(f"{name} must be a number, found {value!r}")
            value = float(value) if not hasattr(value, "__index__") else value.__index__()
        if whole and not isinstance(value, int):
            raise ConfigError(f"{name} must be a whole number, found {value!r}")
        if value not in range_:
            raise ConfigError(f"{name} must {words}, found {value!r}")
        if not math.isfinite(value):
            raise ConfigError(f"{name} must be a finite number, found {value!r}")

    return check

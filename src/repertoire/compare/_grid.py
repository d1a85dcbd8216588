"""A grid of configurations: what varies, what is shared, which one is the baseline, and what each is called."""

from __future__ import annotations

import contextlib
import itertools
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from repertoire import registry
from repertoire.errors import ConfigError, RepertoireError, UnknownName, option
from repertoire.recipe import TrainConfig, make_config

__all__ = ["Grid", "Member", "make_grid", "parse_assignments", "written"]

SPECS = ("backbone", "head", "loss", "method", "rule", "augment")
"""Fields that name a component: their values speak for themselves."""

_FIXED = {
    "data": "a comparison is on the same images; compare on other data in a comparison of its own",
    "seed": "every configuration is run with the same seeds; say how many with {seeds}, and the first with {seed}",
}


@dataclass(frozen=True)
class Member:
    """One configuration of a grid.

    Attributes:
        label: what it is called: the values of the fields that vary.
        settings: these values, by field.
        config: the whole configuration, with the first seed.
    """

    label: str
    settings: Mapping[str, Any]
    config: TrainConfig


@dataclass(frozen=True)
class Grid:
    """The members, in the order of the product of the fields' values, and which of them is the baseline."""

    members: tuple[Member, ...]
    baseline: Member
    shared: TrainConfig
    varied: tuple[str, ...]


def parse_assignments(texts: Iterable[str], flag: str) -> dict[str, str]:
    """`FIELD=VALUES` by field.

    >>> parse_assignments(["loss=cross-entropy,supcon", "batch-size=32,64"], "--vary")
    {'loss': 'cross-entropy,supcon', 'batch_size': '32,64'}

    Raises:
        ConfigError: a text without "=", or a field that is named twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name.isidentifier():
            raise ConfigError(f"{flag} is {text!r}; write {flag} FIELD=VALUE, as in {flag} loss=supcon")
        if name in found:
            raise ConfigError(f"{flag} names {name!r} twice; give all its values at once, separated by commas")
        found[name] = values
    return found


def make_grid(
    shared: Mapping[str, Any],
    vary: Mapping[str, str | Sequence[Any]],
    baseline: Mapping[str, Any] | None = None,
) -> tuple[Grid, dict[str, str]]:
    """The grid, and why some of its members cannot be configured, by label.

    Args:
        shared: fields of `TrainConfig` that all members have in common.
        vary: the values of each field that varies; or a text of them, separated by commas.
        baseline: values of fields that the others are measured against; the first value of each field if it is not
            named.

    Raises:
        UnknownName: a field that does not exist; suggests the nearest.
        ConfigError: no two configurations, a value twice, a field that cannot vary, or a baseline outside the grid.
    """
    common = make_config(**shared)
    values = {field: _values(field, given, shared) for field, given in vary.items()}
    if not values or all(len(options) == 1 for options in values.values()):
        raise ConfigError(
            "a comparison needs two configurations or more: say what varies, as in "
            f"{option('vary', {'loss': 'cross-entropy,supcon'})}"
        )
    members, complaints = [], {}
    for combination in itertools.product(*values.values()):
        settings = dict(zip(values, combination, strict=True))
        label = _label(settings, values)
        try:
            config = make_config(**{**shared, **settings})
        except RepertoireError as error:
            complaints[label] = str(error)
            config = common
        members.append(Member(label, settings, config))
    chosen = _baseline(baseline or {}, values)
    first = next(m for m, c in zip(members, itertools.product(*values.values()), strict=True) if list(c) == chosen)
    return Grid(tuple(members), first, common, tuple(values)), complaints


def written(value: Any) -> str:
    """A value as the command line takes it.

    >>> written(True), written(None), written(("a", "b"))
    ('true', 'none', '(a,b)')
    """
    if isinstance(value, tuple | list):
        return f"({','.join(map(str, value))})"
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)


def _values(field: str, given: str | Sequence[Any], shared: Mapping[str, Any]) -> list[Any]:
    known = TrainConfig.model_fields
    if field not in known:
        raise UnknownName("training option", field, list(known))
    if field in _FIXED:
        why = _FIXED[field].format(seeds=option("seeds"), seed=option("seed"))
        raise ConfigError(f"{field} cannot vary: {why}")
    if field in shared:
        raise ConfigError(f"{field} is given as {written(shared[field])!r} for all, and varies; leave one of them out")
    if isinstance(given, str) and not given.strip():
        raise ConfigError(f"{field} varies and has no values: write {option('vary', {field: 'A,B'})}")
    values = [_typed(field, value) for value in (registry.split(given) if isinstance(given, str) else given)]
    seen: dict[str, Any] = {}
    for value in values:
        key = _key(field, value)
        if key in seen:
            raise ConfigError(f"{field} has the value {written(value)} twice; every configuration is compared once")
        seen[key] = value
    return values


def _typed(field: str, value: Any) -> Any:
    """A value as the configuration reads it, where it can: 0.1 for "0.10", None for "none"."""
    annotation = TrainConfig.model_fields[field].annotation
    if isinstance(value, str):
        value = _read(field, value, annotation)
    try:
        return getattr(make_config(data=".", **{field: value}), field)
    except RepertoireError:
        return value  # what is wrong with it is said later, of all members at once


def _read(field: str, value: str, annotation: Any) -> Any:
    if value.lower() in ("none", "null") and _optional(annotation):
        return None
    if typing.get_origin(annotation) is tuple:
        return tuple(registry.split(value)) if value else ()
    if field in SPECS and "=" in value.partition(":")[0]:
        raise ConfigError(
            f"{field} has the value {value!r}, which looks like an option of the one before it: a value with several "
            f"options goes in parentheses, as in {field}=(local:blocks=4,auxiliary=linear)"
        )
    return value


def _optional(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (typing.Union, types.UnionType) and type(None) in typing.get_args(
        annotation
    )


def _key(field: str, value: Any) -> str:
    """What makes a value the same as another: the order of a component's options says nothing."""
    if field in SPECS and isinstance(value, str):
        with contextlib.suppress(RepertoireError):
            spec = registry.parse(value)
            return repr((spec.name, spec.args, sorted(spec.kwargs.items())))
    return repr(value)


def _label(settings: Mapping[str, Any], values: Mapping[str, Sequence[Any]]) -> str:
    """Label of a configuration, without fields that have a single value."""
    parts = [
        written(value) if field in SPECS or field == "optimizer" else f"{field}={written(value)}"
        for field, value in settings.items()
        if len(values[field]) > 1
    ]
    return " + ".join(parts)


def _baseline(given: Mapping[str, Any], values: Mapping[str, Sequence[Any]]) -> list[Any]:
    for field in given:
        if field not in values:
            raise UnknownName("field that varies", field, list(values))
    chosen = []
    for field, options in values.items():
        wanted = _key(field, _typed(field, given[field])) if field in given else _key(field, options[0])
        matching = [option for option in options if _key(field, option) == wanted]
        if not matching:
            known = ", ".join(map(written, options))
            raise ConfigError(f"the baseline's {field} is {written(given[field])}, which is not one of {known}")
        chosen.append(matching[0])
    return chosen

"""Search over settings, with the same number of trials for every configuration.

A trial is a run of its own seed, judged on the validation images. What trial number k tries depends on the trials
before it and on k, on nothing else: a search that was stopped goes on as if it had not been.
"""

from __future__ import annotations

import json
import math
import typing
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from repertoire import registry
from repertoire.compare._grid import written
from repertoire.errors import ConfigError, MissingExtra, RepertoireError, RunError, UnknownName, option
from repertoire.files import write_json
from repertoire.recipe import TrainConfig, make_config

__all__ = ["SEARCH_SEED", "Range", "Study", "Trial", "parse_space", "require_optuna"]

SEARCH_SEED = 10_000
"""Added to the first seed: trials share their seed with no run that is compared."""

FORMAT = 1


@dataclass(frozen=True)
class Range:
    """Range of a field: numbers from `low` to `high`, or one of `choices`."""

    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False
    choices: tuple[Any, ...] = ()

    def __str__(self) -> str:
        if self.choices:
            return ",".join(map(written, self.choices))
        return f"{self.low:g}..{self.high:g}{':log' if self.log else ''}"

    def holds(self, value: Any) -> bool:
        """True if a value lies in it."""
        if self.choices:
            return value in self.choices
        return isinstance(value, int | float) and not isinstance(value, bool) and self.low <= value <= self.high

    def tidy(self, value: Any) -> Any:
        """The value with as many digits as mean anything."""
        if self.choices or self.whole:
            return value
        return min(max(float(f"{value:.4g}"), self.low), self.high)


@dataclass(frozen=True)
class Trial:
    """Settings of one trial, and its validation accuracy; None where it failed, and why."""

    settings: dict[str, Any]
    value: float | None
    reason: str = ""


Space = Mapping[str, Range]


def require_optuna() -> None:
    """Raises `MissingExtra` where Optuna is not installed."""
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise MissingExtra("compare", option("search")) from None


def parse_space(
    search: Mapping[str, str | Sequence[Any]], shared: Mapping[str, Any], varied: Sequence[str]
) -> dict[str, Range]:
    """`LOW..HIGH`, `LOW..HIGH:log`, or values separated by commas, for each field that is searched.

    >>> parse_space({"lr": "1e-3..1e-1:log"}, {"data": "digits"}, ["loss"])
    {'lr': Range(low=0.001, high=0.1, log=True, whole=False, choices=())}

    Raises:
        UnknownName: a field that does not exist. ConfigError: a range that is none, or a field with a value already.
    """
    space = {}
    for field, given in search.items():
        if field not in TrainConfig.model_fields:
            raise UnknownName("training option", field, list(TrainConfig.model_fields))
        if field in ("data", "seed", "val", "test"):
            raise ConfigError(f"{field} cannot be searched: it decides which images count")
        if field in varied or field in shared:
            raise ConfigError(f"{field} is searched and given a value as well; leave one of them out")
        space[field] = _range(field, given)
    return space


def _range(field: str, given: str | Sequence[Any]) -> Range:
    what = option("search", {field: given if isinstance(given, str) else ",".join(map(written, given))})
    if not isinstance(given, str) or ".." not in given:
        values = registry.split(given) if isinstance(given, str) and given.strip() else list(given)
        choices = tuple(_checked(field, value, what) for value in values)
        if len(set(map(repr, choices))) < max(2, len(choices)):
            raise ConfigError(f"{what}: a search needs two different values or more, or a range such as 0.001..0.1:log")
        return Range(choices=choices)
    ends, _, scale = given.partition(":")
    try:
        low, high = (float(end) for end in ends.split(".."))
    except ValueError:
        raise ConfigError(f"{what}: write a range as LOW..HIGH or LOW..HIGH:log") from None
    if scale not in ("", "log"):
        raise ConfigError(f"{what}: {scale!r} is no scale; write :log, or nothing")
    if not (math.isfinite(low) and math.isfinite(high) and low < high) or (scale and low <= 0):
        raise ConfigError(f"{what}: the lower end must lie below the upper one{', and above 0' if scale else ''}")
    kinds = {kind for kind in (TrainConfig.model_fields[field].annotation,) for kind in (kind, *typing.get_args(kind))}
    if not kinds & {int, float}:
        raise ConfigError(f"{what}: {field} is no number; give values separated by commas")
    whole = float not in kinds
    for end in (low, high):
        _checked(field, int(end) if whole and end.is_integer() else end, what)
    return Range(low, high, bool(scale), whole)


def _checked(field: str, value: Any, what: str) -> Any:
    try:
        return getattr(make_config(data=".", **{field: value}), field)
    except RepertoireError as error:
        raise ConfigError(f"{what}: {error}") from None


class Study:
    """The trials of one configuration, kept in a file.

    Args:
        file: where; trials of the same space that lie there are taken over.
        space: what is searched.
        trials: how many there are to be.
        seed: of the sampler. The same for all configurations: they try the same first settings.
        default: what the fields are without a search; it is tried first where it lies in the space.

    Raises:
        RunError: the file is damaged.
    """

    def __init__(self, file: Path, space: Space, trials: int, seed: int, default: Mapping[str, Any]) -> None:
        self.file = file
        self.space = space
        self.trials = trials
        self.seed = seed
        self.default = {field: default.get(field) for field in space}
        self._head = {"format": FORMAT, "space": {field: str(r) for field, r in space.items()}, "seed": seed}
        self.done: list[Trial] = self._read()[:trials]

    @property
    def begun_with(self) -> int:
        """Number of trials that are drawn at random, before those that learn from the ones before: half of them."""
        return max(1, self.trials // 2)

    def next(self) -> list[dict[str, Any]]:
        """Settings of the trials that can be run now, side by side; nothing when all are done."""
        known = len(self.done)
        last = min(self.trials, max(self.begun_with, known + 1))
        return [self._settings(number) for number in range(known, last)]

    def tell(self, trials: Sequence[Trial]) -> None:
        """Takes in what came of the settings that `next` gave, in their order."""
        self.done += trials
        write_json(self.file, {**self._head, "trials": [asdict(trial) for trial in self.done]})

    @property
    def best(self) -> Trial | None:
        """The trial with the highest validation accuracy, the first of equal ones; None where all failed."""
        good = [trial for trial in self.done if trial.value is not None]
        return max(good, key=lambda trial: trial.value or 0.0) if good else None

    def _settings(self, number: int) -> dict[str, Any]:
        if number == 0 and all(self.space[field].holds(value) for field, value in self.default.items()):
            return dict(self.default)
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sampler: optuna.samplers.BaseSampler
        if number < self.begun_with:
            sampler = optuna.samplers.RandomSampler(seed=self.seed + number)
        else:
            sampler = optuna.samplers.TPESampler(seed=self.seed + number, n_startup_trials=0)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        distributions = {field: _distribution(r) for field, r in self.space.items()}
        for trial in self.done if number >= self.begun_with else ():
            params = {field: _stored(self.space[field], value) for field, value in trial.settings.items()}
            state = optuna.trial.TrialState.FAIL if trial.value is None else optuna.trial.TrialState.COMPLETE
            study.add_trial(
                optuna.trial.create_trial(params=params, distributions=distributions, value=trial.value, state=state)
            )
        drawn = study.ask(distributions).params
        return {field: r.tidy(_given(r, drawn[field])) for field, r in self.space.items()}

    def _read(self) -> list[Trial]:
        if not self.file.exists():
            return []
        try:
            found = json.loads(self.file.read_text(encoding="utf-8"))
            trials = [Trial(**trial) for trial in found.pop("trials")]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(f"{self.file} is damaged ({error}); remove it, and its trials are found again") from None
        return trials if found == self._head else []


def _distribution(r: Range) -> Any:
    import optuna

    if r.choices:
        # Values of any type go by their number, which every storage can hold.
        return optuna.distributions.CategoricalDistribution(list(range(len(r.choices))))
    if r.whole:
        return optuna.distributions.IntDistribution(int(r.low), int(r.high), log=r.log)
    return optuna.distributions.FloatDistribution(r.low, r.high, log=r.log)


def _stored(r: Range, value: Any) -> Any:
    return r.choices.index(value) if r.choices else value


def _given(r: Range, value: Any) -> Any:
    return r.choices[value] if r.choices else value

"""Everything Repertoire raises on purpose, under one base class.

A message names the argument, file or field; says what was found and what was expected; and, where there is one, says
what to do. The command line prints the message on one line and exits with status 2.
"""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from repertoire._aliases import answer_for

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "Interrupted",
    "MissingExtra",
    "NonFiniteLoss",
    "RankLost",
    "RepertoireError",
    "RepertoireWarning",
    "RunError",
    "ShapeError",
    "UnknownName",
    "Unreadable",
    "UnreadableImages",
    "nearest",
    "option",
    "options",
    "other_data",
    "plural",
    "resuming",
    "speak_command_line",
]

_command_line = False


def speak_command_line(on: bool = True) -> None:
    """Says whether messages name the options of the command line (`--overwrite`) or Python's (`overwrite=True`)."""
    global _command_line
    _command_line = on


def option(name: str, value: object = None) -> str:
    """An option as who reads the message would write it.

    >>> option("skip_unreadable", True), option("out"), option("vary", {"lr": "0.1,0.2"})
    ('skip_unreadable=True', 'out', "vary={'lr': '0.1,0.2'}")
    """
    if _command_line:
        if isinstance(value, Mapping):
            return " ".join(option(name, f"{field}={given}") for field, given in value.items())
        flag = ("--no-" if value is False else "--") + name.replace("_", "-")
        return flag if value is None or isinstance(value, bool) else f"{flag} {shlex.quote(str(value))}"
    return name if value is None else f"{name}={value!r}"


def options(**values: object) -> str:
    """Several options as who reads the message would write them after each other.

    >>> options(rule="checkpoint", accumulate=2)
    "rule='checkpoint', accumulate=2"
    """
    return (" " if _command_line else ", ").join(option(name, value) for name, value in values.items())


def plural(count: int, singular: str, many: str | None = None) -> str:
    """A number and its noun, with thousands separated.

    >>> plural(1, "image"), plural(2, "class", "classes"), plural(60000, "image")
    ('1 image', '2 classes', '60,000 images')
    """
    return f"{count:,} {singular if count == 1 else many or singular + 's'}"


def resuming(path: object) -> str:
    """Command, or call, that goes on with the run in a directory.

    >>> resuming("runs/a")
    "repertoire.train.resume('runs/a')"
    """
    shown = ascii_path(str(path))
    return f"repertoire train --resume {shlex.quote(shown)}" if _command_line else f"repertoire.train.resume({shown!r})"


def other_data() -> str:
    """How who reads the message names data to look at, where a run has none of its own.

    >>> other_data()
    'say what to look at, or set run.splits'
    """
    return "name the data to look at after it" if _command_line else "say what to look at, or set run.splits"


class RepertoireError(Exception):
    """Base class of all errors that Repertoire raises on purpose."""


class RepertoireWarning(UserWarning):
    """Base class of all warnings that Repertoire gives on purpose."""


class ConfigError(RepertoireError, ValueError):
    """An option or a field of the configuration has a value that cannot be used. Also a `ValueError`."""


class DataError(RepertoireError):
    """The data cannot be used as it is."""


class RunError(RepertoireError):
    """A run directory is incomplete, in use, from a newer version, or does not fit what is asked of it."""


class CheckpointError(RunError):
    """A checkpoint is truncated, altered, or belongs to another model."""


class ShapeError(RepertoireError, ValueError):
    """A tensor has the wrong shape, dtype or range. Also a `ValueError`, which users of plain PyTorch expect."""


class NonFiniteLoss(RepertoireError, ArithmeticError):
    """The loss became infinite or not a number; the last good checkpoint was kept."""


class RankLost(RepertoireError):
    """Another process of a run over several ranks stopped, or no longer answers."""


class Interrupted(RepertoireError):
    """The user stopped a run. What has a directory was saved, and the message says how to go on."""


class MissingExtra(RepertoireError, ImportError):
    """An optional dependency is needed for what was asked.

    >>> MissingExtra("timm", "backbone 'timm:resnet50'").args[0]
    "backbone 'timm:resnet50' needs an optional dependency: pip install 'repertoire-learn[timm]'"
    """

    def __init__(self, extra: str, what: str) -> None:
        super().__init__(f"{what} needs an optional dependency: pip install 'repertoire-learn[{extra}]'")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that looks most like `name`, or None when nothing is close.

    >>> nearest("supcom", ["supcon", "cross-entropy"])
    'supcon'
    """
    options = list(known)
    lowered = {option.lower().replace("_", "-"): option for option in options}
    match = difflib.get_close_matches(name.lower().replace("_", "-"), lowered, n=1, cutoff=0.6)
    return lowered[match[0]] if match else None


class UnknownName(ConfigError, KeyError):
    """A name that is in no registry; suggests the nearest that is.

    Args:
        kind: what was looked up, in the singular: "loss", "backbone", "option of loss 'supcon'".
        name: the unknown name.
        known: the names that would have been accepted.
    """

    def __init__(self, kind: str, name: str, known: Sequence[str]) -> None:
        answer = answer_for(kind, name, known)
        guess = None if answer else nearest(name, known)
        hint = f"; {answer}" if answer else f"; did you mean {guess!r}?" if guess else ""
        listing = ", ".join(sorted(known)) if known else "none"
        self.message = f"no {kind} is named {name!r}{hint} (known: {listing})"
        super().__init__(self.message)

    def __str__(self) -> str:  # KeyError would print the repr of the message
        return self.message


@dataclass(frozen=True)
class Unreadable:
    """One file that cannot be used, and why."""

    path: str
    reason: str


class UnreadableImages(DataError):
    """Some images cannot be used; all of them are listed, so that one pass is enough to mend them."""

    def __init__(self, failures: Sequence[Unreadable], total: int) -> None:
        self.failures = tuple(failures)
        self.total = total
        shown = "\n".join(f"  {ascii_path(f.path)}: {f.reason}" for f in self.failures[:50])
        more = f"\n  ... and {len(self.failures) - 50} more" if len(self.failures) > 50 else ""
        super().__init__(
            f"{len(self.failures)} of {total} images cannot be used:\n{shown}{more}\n"
            f"Mend or remove them, or go on without them with {option('skip_unreadable', True)}."
        )


def ascii_path(path: str) -> str:
    """A path on one line: control characters and broken unicode are escaped, the rest is left as it is.

    >>> ascii_path("a\\nb.jpg")
    'a\\\\nb.jpg'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in path)

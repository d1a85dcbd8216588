"""The module form of a loss, made from its function: options, their documentation and the call are said once."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from repertoire.ranges import checked_with

__all__ = ["Kept", "derive", "entries_of"]


@dataclass(frozen=True)
class Kept:
    """Marks a tensor that a loss is told once, such as class weights: its module keeps it as a buffer.

    `Annotated[Tensor | None, Kept(as_weight)]` in the signature of a function makes it an option of the module, which
    converts what it is given: a list, or a tensor.
    """

    convert: Callable[[Any], Tensor | None]


def derive(
    cls: type,
    function: Callable[..., Any],
    *,
    before: Iterable[inspect.Parameter] = (),
    after: Iterable[inspect.Parameter] = (),
    texts: dict[str, str] | None = None,
) -> None:
    """Gives a class of losses `__init__`, `options`, `kept` and a docstring, all read off a function.

    Options of the module are the keyword-only arguments of the function, but for tensors, which are given in the call;
    and the tensors that are marked as `Kept`.

    Args:
        cls: the class; its `make(values)` gets the options, with defaults filled in, and keeps them.
        function: the loss as a function.
        before, after: further options of the class.
        texts: what they mean, for the docstring.
    """
    signature, hints = inspect.signature(function), typing.get_type_hints(inspect.unwrap(function), include_extras=True)
    options: list[inspect.Parameter] = []
    kept: dict[str, Callable[[Any], Tensor | None]] = {}
    for name, parameter in signature.parameters.items():
        hint = hints[name]
        mark = next((note for note in getattr(hint, "__metadata__", ()) if isinstance(note, Kept)), None)
        if mark is not None:
            kept[name] = mark.convert
            optional = type(None) in typing.get_args(typing.get_args(hint)[0])
            hint = list[float] | Tensor | None if optional else list[float] | Tensor
        elif parameter.kind is not inspect.Parameter.KEYWORD_ONLY or {Tensor, torch.Generator} & set(_parts(hint)):
            continue
        options.append(parameter.replace(kind=inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=hint))
    myself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    own = [*before, *options, *after]

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        bound = whole.bind(self, *args, **kwargs)
        bound.apply_defaults()
        torch.nn.Module.__init__(self)
        self.make({name: value for name, value in bound.arguments.items() if name != "self"})

    whole = inspect.Signature([myself, *own], return_annotation=None)
    __init__.__dict__["__signature__"] = whole
    __init__.__annotations__ = {p.name: p.annotation for p in own} | {"return": None}
    __init__.__qualname__, __init__.__module__ = f"{cls.__qualname__}.__init__", cls.__module__
    members: dict[str, Any] = {
        "__init__": checked_with(__init__, getattr(function, "also", None)),
        "function": staticmethod(function),
        "options": tuple(p.name for p in options),
        "kept": kept,
    }
    for name, value in members.items():
        setattr(cls, name, value)
    cls.__doc__ = _docstring(cls, function, own, texts or {})


def _parts(hint: Any) -> Iterable[Any]:
    """The types of a choice between types."""
    if typing.get_origin(hint) is typing.Annotated:
        hint = typing.get_args(hint)[0]
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def entries_of(docstring: str, section: str = "Args") -> dict[str, str]:
    """The entries of a section of a docstring, by name, each with its continuation lines."""
    found = re.search(rf"^{section}:\n((?:    .*\n|\n)+)", docstring + "\n", re.MULTILINE)
    entries: dict[str, str] = {}
    for match in re.finditer(
        r"^    (\*?\w[\w*, ]*): ((?:.*\n)(?:^(?:     +.*)?\n)*)", found[1] if found else "", re.MULTILINE
    ):
        for name in match[1].split(", "):
            entries[name.lstrip("*")] = match[2].rstrip()
    return entries


def _docstring(cls: type, function: Callable[..., Any], own: list[inspect.Parameter], texts: dict[str, str]) -> str:
    text = inspect.getdoc(function) or ""
    entries = entries_of(text) | texts
    room = cls.__module__.split(".")
    module = ".".join(room[:2]) if room[0] == "repertoire" else cls.__module__
    more = (cls.__doc__ or "").partition("\n")[2]
    names = [p.name for p in own]
    options = [f"    {name}: {entries[name]}" for name in names if name in entries]
    inputs = [
        f"    {name}: {entry}" for name, entry in entries.items() if name not in names and name in _inputs(function)
    ]
    given = ", ".join(f"{key}={value!r}" for key, value in cls.example_options().items())  # type: ignore[attr-defined]
    lines = [
        text.partition("\n")[0],
        "",
        f"The module form of :func:`{module}.{function.__name__}`, which gives the paper and the formula.",
        *(["", inspect.cleandoc(more)] if more.strip() else []),
        *(["", "Args:", *options] if options else []),
        *(["", "Shapes:", *inputs] if inputs else []),
        "",
        "Raises:",
        "    ConfigError: an option is out of its range.",
        "",
        "Example:",
        "    >>> import torch",
        f"    >>> from {module} import {cls.__name__}",
        f"    >>> {cls.__name__}({given}){cls.example}.shape",  # type: ignore[attr-defined]
        "    torch.Size([])",
    ]
    return "\n".join(lines) + "\n"


def _inputs(function: Callable[..., Any]) -> set[str]:
    return set(inspect.signature(function).parameters)

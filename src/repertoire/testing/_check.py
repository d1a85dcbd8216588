"""A named check, and what checks share."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from repertoire.errors import ConfigError, RepertoireWarning

__all__ = [
    "Check",
    "agree",
    "buffers_of",
    "checks",
    "described",
    "example_options",
    "options_of",
    "refusal_of",
    "refused",
    "same_under_torch",
]


@dataclass(frozen=True)
class Check:
    """A check of a component: called, it raises `AssertionError` where the component does not do what it must.

    Attributes:
        name: what is checked.
        run: the check.
    """

    name: str
    run: Callable[[], None]

    def __call__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RepertoireWarning)
            self.run()

    def __str__(self) -> str:
        return self.name


def checks(subject: object) -> list[Check]:
    """The methods of an object that begin with `check_`, as they are written, those of bases first."""
    names = dict.fromkeys(n for base in reversed(type(subject).__mro__) for n in vars(base) if n.startswith("check_"))
    return [Check(name.removeprefix("check_").replace("_", " "), getattr(subject, name)) for name in names]


def refused(kind: type[Exception], words: str, call: Callable[..., object], /, *args: Any, **kwargs: Any) -> None:
    """Raises `AssertionError` unless a call raises an error of a kind whose message matches a pattern."""
    try:
        call(*args, **kwargs)
    except kind as error:
        said = str(error)
    else:
        raise AssertionError(f"was not refused; expected {kind.__name__} with {words!r}")
    assert re.search(words, said), f"the message should say {words!r}, found {said!r}"


def refusal_of(call: Callable[..., object], /, *args: Any, **kwargs: Any) -> str | None:
    """The message of a `ConfigError` that a call raises, or None where it does what it is asked to."""
    try:
        call(*args, **kwargs)
    except ConfigError as error:
        return str(error)
    return None


def agree(found: Any, expected: Any, **tolerance: Any) -> None:
    """Raises `AssertionError` unless two tensors, or two lists of them, are close."""
    torch.testing.assert_close(found, expected, **tolerance)


def buffers_of(module: nn.Module) -> dict[str, Tensor]:
    """Copies of the buffers of a module, by name."""
    return {name: value.detach().clone() for name, value in module.named_buffers()}


def options_of(factory: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Options of a factory, by name."""
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {n: p for n, p in inspect.signature(factory).parameters.items() if n != "self" and p.kind not in several}


def supplied(factory: Callable[..., Any], **context: Any) -> dict[str, Any]:
    """Picks from the context what the signature of a component names."""
    known = options_of(factory)
    return {name: value for name, value in context.items() if name in known}


def example_options(factory: Callable[..., Any]) -> dict[str, Any]:
    """The options that a component declares for a small example, where the defaults do not do."""
    return dict(factory.example_options()) if hasattr(factory, "example_options") else {}


def described(factory: Callable[..., Any]) -> None:
    """Raises `AssertionError` unless a component has a summary, and says of every option what it means."""
    text = inspect.getdoc(factory) or ""
    summary = text.partition("\n")[0]
    assert 10 < len(summary) <= 120, f"the first line of the docstring is its summary, found {summary!r}"
    assert summary.endswith("."), "the summary is a sentence"
    for name, parameter in options_of(factory).items():
        assert name in text, f"the docstring does not explain {name}"
        assert parameter.annotation is not inspect.Parameter.empty, f"option {name} has no type"


def same_under_torch(
    function: Callable[..., Tensor], inputs: Sequence[Tensor], *, compiled: Callable[..., Tensor] | None = None
) -> None:
    """Raises `AssertionError` unless value and gradient are the same compiled, or under `torch.func`.

    Args:
        function: of the inputs, all floating point, to a scalar.
        inputs: where it is looked at.
        compiled: the same function, compiled; without, `torch.func` is tried.
    """
    inputs = [each.detach().requires_grad_() for each in inputs]
    value = function(*inputs)
    gradients = torch.autograd.grad(value, inputs, allow_unused=True, materialize_grads=True)
    if compiled is not None:
        again = compiled(*inputs)
        agree(again.detach(), value.detach())
        agree(torch.autograd.grad(again, inputs, allow_unused=True, materialize_grads=True), gradients)
        return
    plain = [each.detach() for each in inputs]
    places = tuple(range(len(plain)))
    agree(torch.func.grad(function, argnums=places)(*plain), gradients)
    ways = tuple(torch.randn_like(each) for each in plain)
    slope: Tensor = torch.func.jvp(function, tuple(plain), ways)[1]
    agree(slope, torch.stack([(g * w).sum() for g, w in zip(gradients, ways, strict=True)]).sum())
    pairs = [torch.stack([each, 0.5 * each]) for each in plain]
    both = torch.func.vmap(function, randomness="same")(*pairs)
    agree(both, torch.stack([function(*[pair[i] for pair in pairs]).detach() for i in range(2)]))

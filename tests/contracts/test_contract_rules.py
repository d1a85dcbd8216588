"""Every learning rule keeps its contract; and with every method and loss it either gives back-propagation's loss or
refuses, naming both."""

from __future__ import annotations

from functools import cache

import matrix
import pytest
import torch
from registered import each_check
from torch import Tensor

from repertoire import registry
from repertoire.errors import ConfigError
from repertoire.testing import build_loss, check_rule, takes_loss
from repertoire.testing.rules import one_step, says, small

NAMES = {registry.get("rules", name).factory: name for name in registry.names("rules")}


@each_check("rules", lambda factory: check_rule(factory, methods=matrix.MethodsOf(NAMES[factory])))
def test_keeps_its_contract(check):
    check()


#: Options that change what a rule does with gradients.
OPTIONS = {"local-overlap": ("local", {"overlap": 1})}


@pytest.mark.parametrize(("name", "options"), OPTIONS.values(), ids=OPTIONS)
def test_keeps_its_contract_with_other_options(name, options):
    factory = registry.get("rules", name).factory
    for check in check_rule(factory, methods=("supervised", "simclr", "moco", "fixmatch"), **options):
        check()


@cache
def of_backprop(method: str, loss: str | None) -> tuple[dict[str, Tensor], bool] | None:
    """The logs of back-propagation's first step, and whether the loss draws; None where the method refuses the loss."""
    try:
        built = small(method, loss)
    except ConfigError as refusal:
        assert loss is not None
        says(str(refusal), type(build_loss(loss)).__name__)
        return None
    logs = one_step(matrix.build_rule("backprop"), built)
    assert logs["loss"].isfinite(), loss
    return logs, takes_loss(method) and built.loss.random


def agrees_or_says_why_not(method: str, loss: str | None, name: str) -> None:
    """One cell: the first step of a rule has back-propagation's loss, or the refusal names both and a way out."""
    reference = of_backprop(method, loss)
    assert reference is not None
    expected, random = reference
    rule, built = matrix.build_rule(name), small(method, loss)
    try:
        rule.check(built)
        found = one_step(rule, built)
    except ConfigError as refusal:
        text = str(refusal)
        says(text, f"rule {name!r}" if "rule" in text.split(" cannot")[0] else "auxiliary network")
        says(text, f"method {method!r}" if f"{method!r}" in text else type(built.loss).__name__)
        return
    assert expected.keys() <= found.keys(), (method, loss, name)
    if random and rule.requires == "objective" and rule.exits(built.model, torch.zeros(2, 1, 8, 8)):
        return  # each block draws from a random stream of its own
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-5, msg=f"{method} {loss} {name} {key}")


def meet(name: str, pairs: list[tuple[str, str | None]], of: int) -> None:
    """A component meets those that it is paired with, rule after rule, and in the end a rule of each family."""
    turns, last = matrix.Turns(name), None
    for pair in pairs:
        if of_backprop(*pair) is None:
            continue
        last = pair
        for rule in turns.next(pair[of]):
            agrees_or_says_why_not(*pair, rule)
    assert last is not None, "no method takes it"
    for rule in turns.rest(last[of]):
        agrees_or_says_why_not(*last, rule)


@pytest.mark.parametrize("name", registry.names("methods"))
def test_a_method_agrees_with_backprop_or_says_why_not(name: str):
    meet(name, [(name, loss) for loss in matrix.losses_of(name)], of=1)


@pytest.mark.parametrize("name", registry.names("losses"))
def test_a_loss_agrees_with_backprop_or_says_why_not(name: str):
    if build_loss(name).contract == "predictions":
        assert all(of_backprop(method, name) is None for method in matrix.methods_of(name))
        return
    meet(name, [(method, name) for method in matrix.methods_of(name)], of=0)


@pytest.mark.parametrize("name", [name for name in registry.names("rules") if name != "backprop"])
def test_a_rule_agrees_with_backprop_or_says_why_not(name: str):
    found = [pair for pair in matrix.pairs_of(name) if of_backprop(*pair) is not None]
    for pair in found:
        agrees_or_says_why_not(*pair, name)
    assert found


def test_the_kinds_are_fewer_than_the_components():
    """Else the matrix would be a product again."""
    assert len(matrix.kinds_of_losses()) < len(registry.names("losses")) / 2
    assert len([kind for kind in matrix.kinds_of_methods() if matrix.taken(kind)]) < len(registry.names("methods")) / 3

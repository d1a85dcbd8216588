"""Every learning rule keeps its contract; and with every method and loss it either gives back-propagation's loss or
refuses, naming both."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from registered import each_check

from repertoire import registry
from repertoire.errors import ConfigError
from repertoire.rules import Rule
from repertoire.testing import build_loss, check_rule, example_options, takes_loss
from repertoire.testing.rules import one_step, says, small


@each_check("rules", check_rule)
def test_keeps_its_contract(check):
    check()


def build_rule(name: str) -> Rule:
    factory = registry.get("rules", name).factory
    return factory(**example_options(factory))


def losses_for(name: str) -> Iterator[str | None]:
    """The losses that a method could be given, by what they are called with."""
    yield from registry.names("losses") if takes_loss(name) else [None]


@pytest.mark.parametrize("name", registry.names("methods"))
def test_method_and_rule_and_loss_agree_with_backprop_or_say_why_not(name: str):
    cells = 0
    for loss in losses_for(name):
        try:
            method = small(name, loss)
        except ConfigError as refusal:
            assert loss is not None
            says(str(refusal), type(build_loss(loss)).__name__)
            continue
        expected = one_step(build_rule("backprop"), method)
        assert expected["loss"].isfinite(), loss
        random = takes_loss(name) and method.loss.random
        for other in registry.names("rules"):
            cells += 1
            if other == "backprop":
                continue
            rule, method = build_rule(other), small(name, loss)
            try:
                rule.check(method)
                found = one_step(rule, method)
            except ConfigError as refusal:
                text = str(refusal)
                says(text, f"rule {other!r}" if "rule" in text.split(" cannot")[0] else "auxiliary network")
                says(text, f"method {name!r}" if f"{name!r}" in text else type(method.loss).__name__)
                continue
            assert expected.keys() <= found.keys(), (other, loss)
            if random and rule.requires == "objective" and rule.exits(method.model, torch.zeros(2, 1, 8, 8)):
                continue  # each block draws from a random stream of its own
            for key, value in expected.items():
                torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-5, msg=f"{other} {loss} {key}")
    assert cells

"""Every learning rule: weights change, gradients do not stay, the state comes back; and with every method and loss it
either gives back-propagation's loss or refuses, naming both."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from method_bed import batch_for, build_method, followers, memory_of, same, takes_loss

from repertoire import registry
from repertoire.errors import ConfigError
from repertoire.methods import Method
from repertoire.rules import Rule

#: Options for a small network.
SPECS = {"local": "local:blocks=2,auxiliary=linear", "gradcache": "gradcache:chunk=7", "sam": "sam:rho=1e-7"}
RULES = registry.names("rules")


def build_rule(name: str) -> Rule:
    return registry.build("rules", SPECS.get(name, name))


@pytest.fixture(params=RULES)
def rule(request: pytest.FixtureRequest) -> Rule:
    return build_rule(request.param)


def set_up(rule: Rule, method: Method, lr: float = 0.1, **options: object) -> Rule:
    example = torch.zeros(2, 1, 8, 8)
    rule.setup(method, lambda m: torch.optim.SGD(m.parameters(), lr=lr, momentum=0.9), example=example, **options)
    return rule


def one_step(
    rule: Rule, method: Method, count: int = 12, lr: float = 0.1, **options: object
) -> dict[str, torch.Tensor]:
    set_up(rule, method, lr, **options)
    torch.manual_seed(5)
    return rule.step(method, batch_for(method, count))


def test_steps_lower_the_loss_and_leave_no_gradient(rule: Rule):
    method = build_method("supervised")
    set_up(rule, method)
    batch = batch_for(method)
    values = [float(rule.step(method, batch)["loss"]) for _ in range(60)]
    assert values[-1] < 0.7 * values[0]
    assert all(p.grad is None for p in method.parameters())
    assert method.training


def test_the_state_is_complete_between_any_two_steps(rule: Rule):
    method = build_method("supervised")
    set_up(rule, method)
    batch = batch_for(method)
    rule.step(method, batch)
    other_method = build_method("supervised")
    other = set_up(copy.copy(rule), other_method)
    other_method.load_state_dict(copy.deepcopy(method.state_dict()))
    other.load_state_dict(copy.deepcopy(rule.state_dict()))
    for _ in range(2):
        rule.step(method, batch)
        other.step(other_method, batch)
    for a, b in zip(method.state_dict().values(), other_method.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_learning_rate_of_zero_changes_no_parameter(rule: Rule):
    method = build_method("supervised")
    set_up(rule, method)
    before = [p.detach().clone() for p in method.parameters()]
    for optimizer in rule.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = 0.0
    rule.step(method, batch_for(method))
    assert all(torch.equal(a, b) for a, b in zip(before, method.parameters(), strict=True))


def test_accumulation_and_clipping_are_taken(rule: Rule):
    method = build_method("supervised")
    set_up(rule, method, accumulate=3, clip=1e-6)
    before = [p.detach().clone() for p in method.parameters()]
    rule.step(method, batch_for(method))
    moved = torch.stack([(a - b).norm() for a, b in zip(before, method.parameters(), strict=True)]).norm()
    assert 0 < moved < 1e-6


def test_what_the_loop_asks_of_a_rule(rule: Rule):
    method = build_method("supervised")
    set_up(rule, method)
    assert rule.gather("value") == ["value"]
    assert rule.held(method) == set(method.state_dict())
    exits = rule.exits(copy.deepcopy(method.model), torch.zeros(2, 1, 8, 8))
    assert exits is None or len(exits(torch.zeros(2, 1, 8, 8))) > 1
    if not rule.supports_pipeline:
        with pytest.raises(ConfigError, match="knows no pipeline"):
            set_up(copy.copy(rule), build_method("supervised"), pipeline=object())


def small(name: str, loss: str | None = None) -> Method:
    """Without batch normalisation where the method can do so, whose statistics would differ from piece to piece."""
    maps = name in ("guided", "support-trivial", "densecl", "cpc")
    return build_method(name, loss, "convnet:width=4,depth=2" if maps else "vit:patch=4,dim=12,depth=2,heads=2")


@pytest.mark.parametrize("name", registry.names("methods"))
def test_all_rules_leave_the_memories_of_backprop(name: str):
    """With weights that stay: passes that look again, pieces and chunks are of no account to what is remembered."""
    expected = small(name)
    one_step(build_rule("backprop"), expected, lr=0.0)
    kept = memory_of(expected)
    for other in RULES:
        for pieces in (1, 3):
            method = small(name)
            try:
                one_step(build_rule(other), method, lr=0.0, accumulate=pieces)
            except ConfigError:
                continue
            found = {name: value for name, value in memory_of(method).items() if not name.startswith("local.")}
            assert same(found, kept, rtol=1e-4, atol=1e-5), (other, pieces)


@pytest.mark.parametrize("name", registry.names("methods"))
def test_a_step_that_the_loss_scaler_left_out_moves_neither_memory_nor_teacher(name: str):
    for other in RULES:
        for scale, moves in ((2.0**127, False), (1.0, True)):
            method = small(name)
            before = {**memory_of(method), **followers(method)}
            precision = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=scale))
            try:
                one_step(build_rule(other), method, 4, fabric=Fabric(accelerator="cpu", plugins=precision))
            except ConfigError:
                continue
            found = {**memory_of(method), **followers(method)}
            found = {name: value for name, value in found.items() if not name.startswith("local.")}
            assert same(found, before) != (moves and bool(before) and name not in MOVELESS), (other, scale)


#: Their buffers are constants.
MOVELESS = {
    "supervised",
    "guided",
    "embedding",
    "dropout-views",
    "simclr",
    "simsiam",
    "relational",
    "datum-index",
    "cpc",
    "fixmatch",
}


def losses_for(name: str) -> Iterator[str | None]:
    """The losses that a method could be given, by what they are called with."""
    if not takes_loss(name):
        yield None
        return
    for entry in registry.entries("losses"):
        yield entry.name


@pytest.mark.parametrize("name", registry.names("methods"))
def test_method_and_rule_and_loss_agree_with_backprop_or_say_why_not(name: str):
    cells = 0
    for loss in losses_for(name):
        try:
            method = small(name, loss)
        except ConfigError as refusal:
            assert loss is not None
            says(refusal, type(build(loss)).__name__)
            continue
        expected = one_step(build_rule("backprop"), method)
        assert expected["loss"].isfinite(), loss
        random = takes_loss(name) and method.loss.random
        for other in RULES:
            cells += 1
            if other == "backprop":
                continue
            rule, method = build_rule(other), small(name, loss)
            try:
                rule.check(method)
                found = one_step(rule, method)
            except ConfigError as refusal:
                says(refusal, f"rule {other!r}" if "rule" in str(refusal).split(" cannot")[0] else "auxiliary network")
                says(refusal, f"method {name!r}" if f"{name!r}" in str(refusal) else type(method.loss).__name__)
                continue
            assert expected.keys() <= found.keys(), (other, loss)
            if random and other in ("local", "tpsgd"):
                continue  # each block draws from a random stream of its own
            for key, value in expected.items():
                torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-5, msg=f"{other} {loss} {key}")
    assert cells


def build(loss: str):
    from method_bed import build_loss

    return build_loss(loss)


def says(refusal: ConfigError, what: str) -> None:
    """The message names what it is about, and a way out."""
    assert what in str(refusal), (what, refusal)
    assert "use " in str(refusal).lower(), refusal

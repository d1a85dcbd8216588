"""What every learning rule must do: weights change, gradients do not stay, the state comes back; and with each method
it either gives back-propagation's loss or refuses, naming both."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor

from repertoire import registry
from repertoire.errors import ConfigError
from repertoire.methods import Method
from repertoire.rules import Backprop, Rule
from repertoire.testing._bed import batch_for, build_method, followers, memory_of, same
from repertoire.testing._check import Check, agree, checks, described, example_options, refused

__all__ = ["check_rule"]


def check_rule(
    factory: Callable[..., Rule], *, methods: Iterable[str | type[Method]] | None = None, **options: Any
) -> list[Check]:
    """Checks of a learning rule against :class:`repertoire.rules.Rule`, with small methods of all kinds.

    Args:
        factory: the class.
        methods: names or classes of the methods that it meets; all that are registered if None.
        options: options to build it with. At these, and with weights that hardly move, the first loss must be
            back-propagation's.

    Returns:
        The checks; each is called without arguments.

    Example:
        >>> from repertoire.rules import SAM
        >>> from repertoire.testing import check_rule
        >>> for check in check_rule(SAM, methods=("supervised", "simclr"), rho=1e-7):
        ...     check()
    """
    return checks(_Rules(factory, methods, options))


def _set_up(rule: Rule, method: Method, lr: float = 0.1, **how: Any) -> Rule:
    example = torch.zeros(2, 1, 8, 8)
    rule.setup(method, lambda m: torch.optim.SGD(m.parameters(), lr=lr, momentum=0.9), example=example, **how)
    return rule


def one_step(rule: Rule, method: Method, count: int = 12, lr: float = 0.1, **how: Any) -> dict[str, Tensor]:
    """The logs of the first step of a rule."""
    _set_up(rule, method, lr, **how)
    torch.manual_seed(5)
    return rule.step(method, batch_for(method, count))


@cache
def _network_for(method: Any) -> str:
    """Without batch normalisation where the method can do so, whose statistics would differ from piece to piece."""
    tokens = "vit:patch=4,dim=12,depth=2,heads=2"
    try:
        found = build_method(method, None, tokens)
        found.step(batch_for(found))
    except (ConfigError, ValueError):
        return "convnet:width=4,depth=2"  # it wants maps
    return tokens


def small(method: str | type[Method], loss: str | None = None) -> Method:
    """A small method, whose loss of a batch does not depend on the pieces that the batch is processed in."""
    key: Any = method
    return build_method(method, loss, _network_for(key))


def says(refusal: str, what: str) -> None:
    """Raises `AssertionError` unless a message names what it is about, and a way out."""
    assert what in refusal, f"the message should name {what}, found {refusal!r}"
    assert "use " in refusal.lower(), f"the message should name a way out, found {refusal!r}"


def _moving(method: Method) -> dict[str, Tensor]:
    """Memories and teachers, without those of auxiliary networks."""
    everything = {**memory_of(method), **followers(method)}
    return {key: value for key, value in everything.items() if not key.startswith("local.")}


@cache
def _of_backprop(method: Any, lr: float) -> tuple[dict[str, Tensor], dict[str, Tensor], bool]:
    """The logs of back-propagation's first step, the memories that it leaves, and whether the step moved anything."""
    built = small(method)
    before = _moving(built)
    logs = one_step(Backprop(), built, lr=lr)
    return logs, memory_of(built), not same(_moving(built), before)


class _Rules:
    def __init__(
        self, factory: Callable[..., Rule], methods: Iterable[str | type[Method]] | None, options: dict[str, Any]
    ) -> None:
        self.factory, self.options = factory, {**example_options(factory), **options}
        self.names = methods

    @property
    def methods(self) -> Iterator[str | type[Method]]:
        return iter(registry.names("methods") if self.names is None else self.names)

    def build(self) -> Rule:
        return self.factory(**self.options)

    def ready(self, **how: Any) -> tuple[Rule, Method]:
        method = build_method("supervised")
        return _set_up(self.build(), method, **how), method

    def check_it_is_documented(self) -> None:
        described(self.factory)
        assert isinstance(self.build(), Rule)

    def check_steps_lower_the_loss_and_leave_no_gradient(self) -> None:
        rule, method = self.ready()
        batch = batch_for(method)
        values = [float(rule.step(method, batch)["loss"]) for _ in range(60)]
        assert values[-1] < 0.7 * values[0]
        assert all(p.grad is None for p in method.parameters())
        assert method.training

    def check_its_state_is_complete_between_any_two_steps(self) -> None:
        rule, method = self.ready()
        batch = batch_for(method)
        rule.step(method, batch)
        other, twin = self.ready()
        twin.load_state_dict(copy.deepcopy(method.state_dict()))
        other.load_state_dict(copy.deepcopy(rule.state_dict()))
        for _ in range(2):
            rule.step(method, batch)
            other.step(twin, batch)
        agree(dict(twin.state_dict()), dict(method.state_dict()), rtol=0, atol=0)

    def check_a_learning_rate_of_zero_changes_no_parameter(self) -> None:
        rule, method = self.ready()
        before = [p.detach().clone() for p in method.parameters()]
        for optimizer in rule.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = 0.0
        rule.step(method, batch_for(method))
        agree([p.detach() for p in method.parameters()], before, rtol=0, atol=0)

    def check_accumulation_and_clipping_are_taken(self) -> None:
        rule, method = self.ready(accumulate=3, clip=1e-6)
        before = [p.detach().clone() for p in method.parameters()]
        rule.step(method, batch_for(method))
        moved = torch.stack([(a - b).norm() for a, b in zip(before, method.parameters(), strict=True)]).norm()
        assert 0 < moved < 1e-6

    def check_what_the_loop_asks_of_it(self) -> None:
        rule, method = self.ready()
        assert rule.gather("value") == ["value"]
        assert rule.held(method) == set(method.state_dict())
        exits = rule.exits(copy.deepcopy(method.model), torch.zeros(2, 1, 8, 8))
        assert exits is None or len(exits(torch.zeros(2, 1, 8, 8))) > 1
        if not rule.supports_pipeline:
            refused(ConfigError, "knows no pipeline", self.ready, pipeline=object())

    def check_memories_are_those_of_backprop(self) -> None:
        """With weights that stay: passes that look again, pieces and chunks are of no account to what is remembered."""
        for name in self.methods:
            key: Any = name
            for pieces in (1, 3):
                method = small(name)
                try:
                    one_step(self.build(), method, lr=0.0, accumulate=pieces)
                except ConfigError:
                    continue
                kept = _of_backprop(key, 0.0)[1]
                found = {key: value for key, value in memory_of(method).items() if not key.startswith("local.")}
                assert same(found, kept, rtol=1e-4, atol=1e-5), f"{name} in {pieces} pieces remembers something else"

    def check_a_step_that_the_loss_scaler_leaves_out_moves_nothing(self) -> None:
        from lightning_fabric import Fabric
        from lightning_fabric.plugins import MixedPrecision

        for name in self.methods:
            key: Any = name
            for scale, counts in ((2.0**127, False), (1.0, True)):
                method = small(name)
                before = _moving(method)
                precision = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=scale))
                try:
                    one_step(self.build(), method, 4, fabric=Fabric(accelerator="cpu", plugins=precision))
                except ConfigError:
                    continue
                moved = not same(_moving(method), before)
                assert moved == (counts and _of_backprop(key, 0.1)[2]), f"{name} at a loss scale of {scale:g}"

    def check_it_gives_the_loss_of_backprop_or_says_why_not(self) -> None:
        for name in self.methods:
            key: Any = name
            method = small(name)
            try:
                found = one_step(self.build(), method)
            except ConfigError as refusal:
                says(str(refusal), name if isinstance(name, str) else name.__name__)
                continue
            expected = _of_backprop(key, 0.1)[0]
            assert expected.keys() <= found.keys()
            agree({key: found[key] for key in expected}, expected, rtol=1e-4, atol=1e-5)

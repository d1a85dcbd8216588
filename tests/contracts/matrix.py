"""Which cells of the matrix of methods, losses and rules are run: each component with all kinds of the others.

Methods that declare the same, as far as a rule or a loss can tell, are of one kind, and so are losses and rules. Every
method meets a loss of each kind, every loss a method of each kind, both a rule of each family, and every rule each pair
of a kind of methods and a kind of losses. Which of a kind it meets is decided by the hash of their names, so that the
members take turns. `REPERTOIRE_CHECKS=whole` runs all cells, whose number is a product and not a sum.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from functools import cache
from zlib import crc32

from repertoire import registry
from repertoire.losses import Loss
from repertoire.ops import Memory
from repertoire.rules import Rule
from repertoire.testing import build_loss, build_method, example_options, takes_loss

WHOLE = os.environ.get("REPERTOIRE_CHECKS") == "whole"


def build_rule(name: str) -> Rule:
    factory = registry.get("rules", name).factory
    return factory(**example_options(factory))


@cache
def of_method(name: str) -> Hashable:
    """What rules and losses ask a method before they take or refuse it."""
    method = build_method(name)
    needs, loss = method.needs, method.block_loss
    declared = (needs.step, needs.labels, needs.targets, needs.per_sample)
    return (*declared, takes_loss(name), getattr(loss, "contract", loss is None), len(method.parts()) > 1)


@cache
def of_loss(name: str) -> Hashable:
    """What methods and rules can tell of a loss."""
    loss = build_loss(name)
    parts = list(loss.modules())
    random = any(isinstance(part, Loss) and part.random for part in parts)
    remembers = any(isinstance(part, Memory) for part in parts)
    learns = any(True for _ in loss.parameters())
    return (
        (loss.contract, loss.targets, loss.views, loss.wants, loss.gathers, random, remembers, learns),
        (getattr(loss, "soft", None), getattr(loss, "proxied", None), type(loss).prepare is Loss.prepare),
    )


@cache
def of_rule(name: str) -> Hashable:
    """What a rule declares, and the class that it shares its step with."""
    rule = registry.get("rules", name).factory
    declared = (rule.requires, rule.labels, rule.parts, rule.pieces_alike)
    return (*declared, rule.supports_pipeline, rule.supports_sharding, rule.__mro__[1])


def kinds(names: Iterable[str], of: Callable[[str], Hashable]) -> list[tuple[str, ...]]:
    """The names, those of a kind together."""
    found: dict[Hashable, list[str]] = defaultdict(list)
    for name in names:
        found[of(name)].append(name)
    return [tuple(each) for each in found.values()]


@cache
def kinds_of_methods() -> list[tuple[str, ...]]:
    return kinds(registry.names("methods"), of_method)


@cache
def kinds_of_losses() -> list[tuple[str, ...]]:
    return kinds(registry.names("losses"), of_loss)


@cache
def families_of_rules() -> list[tuple[str, ...]]:
    return kinds((name for name in registry.names("rules") if name != "backprop"), of_rule)


def pick(group: Iterable[str], *partners: object) -> str:
    """The one of a group whose turn it is with these partners; a new member takes turns, and shifts no others."""
    return min(group, key=lambda name: (crc32(f"{name} {partners}".encode()), name))


def taken(kind: tuple[str, ...]) -> bool:
    return takes_loss(kind[0])


def losses_of(method: str) -> Iterator[str | None]:
    """The losses that a method meets: one of each kind, or None where it is given none."""
    if not takes_loss(method):
        yield None
    elif WHOLE:
        yield from registry.names("losses")
    else:
        yield from (pick(kind, method) for kind in kinds_of_losses())


def methods_of(loss: str) -> Iterator[str]:
    """The methods that a loss meets: one of each kind that is given losses."""
    yield from (pick(kind, loss) for kind in kinds_of_methods() if taken(kind))


def pairs_of(rule: str) -> Iterator[tuple[str, str | None]]:
    """The pairs of a method and a loss that a rule meets: one of each two kinds."""
    for methods in kinds_of_methods():
        if not taken(methods):
            yield pick(methods, rule), None
            continue
        yield from ((pick(methods, rule, losses[0]), pick(losses, rule, methods[0])) for losses in kinds_of_losses())


class MethodsOf:
    """The methods that a rule meets with the losses that they bring: one of each kind, and those that meet no other of
    its family. They are found when they are asked for, so that nothing is built to list the tests."""

    def __init__(self, rule: str) -> None:
        self.rule = rule

    def __iter__(self) -> Iterator[str]:
        family = next((family for family in families_of_rules() if self.rule in family), (self.rule,))
        for kind in kinds_of_methods():
            turn = pick(kind, self.rule)
            yield from (name for name in kind if WHOLE or name == turn or pick(family, name) == self.rule)


class Turns:
    """Rules in turn for the losses of a method, or the methods of a loss, until none is left that it has not met."""

    def __init__(self, name: str) -> None:
        self.name, families = name, families_of_rules()
        first = crc32(name.encode()) % len(families)
        self.families = [*families[first:], *families[:first]]
        self.count = 0

    def next(self, partner: str | None) -> list[str]:
        """The rules for the next pair: one of a family, or all of them in the whole matrix."""
        if WHOLE:
            return [name for family in self.families for name in family]
        family = self.families[self.count % len(self.families)]
        self.count += 1
        return [pick(family, self.name, partner)]

    def rest(self, partner: str | None) -> list[str]:
        """Of each family that no turn has come to, a rule."""
        return [] if WHOLE else [pick(family, self.name, partner) for family in self.families[self.count :]]

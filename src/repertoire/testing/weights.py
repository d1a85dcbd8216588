"""What every operator on weights must do: states of one architecture to a state of it, or to what is stored of one."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from repertoire.data import Batch
from repertoire.errors import CheckpointError, ConfigError
from repertoire.testing._check import Check, agree, checks, described, example_options, options_of, refused, supplied
from repertoire.weights import LazyState, Stored, save_state

__all__ = ["check_weight_operator"]

State = Mapping[str, Tensor]


def check_weight_operator(operator: Callable[..., Mapping[str, Tensor] | Stored], **options: Any) -> list[Check]:
    """Checks of an operator on weights: `operator(states, **options)` gives a state, or a `Stored` network.

    An operator whose signature names `base`, `network`, `batches` or `score` is given one. One that asks for a network
    merges the states of a small one, of convolutions, normalisation and a linear layer; any other merges three tensors
    that belong to none. One that takes two states and no more says so: `operator.at_most = 2`.

    Args:
        operator: the function.
        options: options to call it with.

    Returns:
        The checks; each is called without arguments.

    Example:
        >>> from repertoire.testing import check_weight_operator
        >>> from repertoire.weights import uniform_soup
        >>> for check in check_weight_operator(uniform_soup):
        ...     check()
    """
    return checks(_Operators(operator, options))


def _empty() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 3),
    )


def _network(state: State, of: int = 0) -> nn.Module:
    net = _empty().eval()
    net.load_state_dict(dict(state))
    return net


def _batches(of: int | None = None) -> Iterator[Batch]:
    """Two batches of each of three runs, the same at every call."""
    for run in range(3) if of is None else (of,):
        generator = torch.Generator().manual_seed(run)
        for _ in range(2):
            yield Batch((torch.rand(10, 1, 6, 6, generator=generator),), torch.arange(10) % 3, torch.arange(10))


class _Operators:
    def __init__(self, operator: Callable[..., State | Stored], options: dict[str, Any]) -> None:
        self.operator = operator
        self.several = min(3, getattr(operator, "at_most", 3))
        self.of_networks = bool({"network", "batches"} & options_of(operator).keys())
        self.relative = "base" in options_of(operator)
        given = supplied(operator, score=self.score, network=_network, batches=_batches)
        if self.relative:
            given["base"] = self.states(4)[3]
        self.options = {**given, **example_options(operator), **options}

    @property
    def counts(self) -> tuple[int, ...]:
        """Numbers of states to try: one only where a network is not asked for, which nobody would merge by itself."""
        return tuple(sorted({2 if self.of_networks or self.several == 2 else 1, self.several}))

    @property
    def first(self) -> str:
        """Name of the first tensor."""
        return "0.weight" if self.of_networks else "a.weight"

    def score(self, state: State) -> float:
        return float(state[self.first].double().sum())

    def merged(self, states: Sequence[State], **options: Any) -> State:
        """What the operator makes of the states; of a stored network, the tensors that stand in its file."""
        found = self.operator(states, **{**self.options, **options})
        return found.tensors if isinstance(found, Stored) else found

    def states(self, count: int = 0) -> list[dict[str, Tensor]]:
        """States that differ, as many as it takes where no number is given."""
        count = count or self.several
        if self.of_networks:
            return [self.of_network(i) for i in range(count)]
        generator = torch.Generator().manual_seed(0)
        return [
            {
                "a.weight": torch.randn(4, 3, generator=generator),
                "half": torch.randn(2, generator=generator).to(torch.bfloat16),
                "num_batches_tracked": torch.tensor(i + 5),
            }
            for i in range(count)
        ]

    @staticmethod
    def of_network(seed: int) -> dict[str, Tensor]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = _empty()
            for _ in range(seed + 1):  # counters that differ
                net(torch.rand(8, 1, 6, 6))
        return {name: value.clone() for name, value in net.state_dict().items()}

    def check_it_is_documented(self) -> None:
        described(self.operator)
        named = options_of(self.operator)
        assert next(iter(named)) == "states", "the first argument of an operator is called states"
        for name, parameter in list(named.items())[1:]:
            given = name in self.options
            assert given or parameter.default is not inspect.Parameter.empty, f"option {name} has no default"

    def check_it_gives_a_state_of_the_same_architecture(self) -> None:
        for count in self.counts:
            given = self.states(count)
            found = self.operator(given, **self.options)
            if isinstance(found, Stored):
                net = found.build(_network(given[0])).eval()
                with torch.no_grad():
                    logits = net(next(_batches(0)).images)
                assert logits.shape == (10, 3), f"logits have the shape {list(logits.shape)}"
                assert logits.isfinite().all()
                continue
            assert {name: (value.shape, value.dtype) for name, value in found.items()} == {
                name: (value.shape, value.dtype) for name, value in given[0].items()
            }

    def check_what_cannot_be_averaged_is_of_one_of_the_states(self) -> None:
        given = self.states()
        found = self.merged(given)
        for name in (name for name in found if name.endswith("num_batches_tracked")):
            counters = {int(state[name]) for state in given if name in state}
            assert not counters or int(found[name]) in counters, (
                f"a counter is {found[name]}, that of none of the states"
            )

    def check_of_one_state_or_of_copies_it_is_that_state(self) -> None:
        """Relative to a base, changes are added, so that copies of a state need not give it: copies of the base do."""
        tolerance = {"rtol": 1e-4, "atol": 1e-5} if self.of_networks else {"rtol": 0, "atol": 0}
        for count in self.counts:
            given = [self.states(1)[0] for _ in range(count)]
            found = self.operator(given, **{**self.options, **({"base": self.states(1)[0]} if self.relative else {})})
            if isinstance(found, Stored):
                nets = [found.build(_network(given[0])).eval(), _network(given[0])]
                with torch.no_grad():
                    agree(*(net(next(_batches(0)).images) for net in nets), rtol=1e-3, atol=1e-4)
                continue
            weights = {name: value for name, value in given[0].items() if "running" not in name}
            agree({name: found[name] for name in weights}, weights, **tolerance)

    def check_the_states_stay_as_they_were(self) -> None:
        for count in self.counts:
            given = self.states(count)
            self.merged(given)
            agree(given, self.states(count), rtol=0, atol=0)

    def check_its_result_shares_no_memory_with_the_states(self) -> None:
        for count in self.counts:
            given = self.states(count)
            for value in self.merged(given).values():
                value.zero_()
            agree(given, self.states(count), rtol=0, atol=0)

    def check_files_give_what_memory_gives(self) -> None:
        import tempfile
        from pathlib import Path

        expected = dict(self.merged(self.states()))
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder) / f"{i}.safetensors" for i in range(self.several)]
            for state, path in zip(self.states(), paths, strict=True):
                save_state(state, path)
            found = {name: value.clone() for name, value in self.merged([LazyState(path) for path in paths]).items()}
        agree(found, expected, rtol=0, atol=0)

    def check_states_that_do_not_fit_are_refused(self) -> None:
        refused(ConfigError, "empty", self.merged, [])
        first, second, third = self.states(3)
        last = [name for name in second if name != self.first and second[name].is_floating_point()][-1]
        lacking = {name: value for name, value in second.items() if name != last} | {"extra": first[last]}
        other = third | {self.first: torch.zeros(2)}
        words = ".*".join(map(re.escape, (last, "extra", self.first)))
        if self.several == 2:
            refused(CheckpointError, words, self.merged, [first, lacking | {self.first: other[self.first]}])
        else:
            refused(CheckpointError, words, self.merged, [first, lacking, other])

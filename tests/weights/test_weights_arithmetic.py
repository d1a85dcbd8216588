"""Weighted means, arcs and elections, against mergekit's definitions written as loops over single numbers."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from repertoire.errors import CheckpointError, ConfigError
from repertoire.weights import dare, linear, slerp, task_arithmetic, ties, uniform_soup


def state(seed: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "w": torch.randn(4, 3, generator=generator).to(dtype),
        "b": torch.randn((), generator=generator).to(dtype),
        "steps": torch.tensor(10 + seed),
    }


def close(found: dict[str, Tensor], expected: dict[str, list[float]], tolerance: float = 1e-6) -> None:
    for name, values in expected.items():
        torch.testing.assert_close(
            found[name].double().flatten(), torch.tensor(values, dtype=torch.float64), rtol=tolerance, atol=tolerance
        )


def numbers(tensor: Tensor) -> list[float]:
    return tensor.double().flatten().tolist()


def arc(first: list[float], second: list[float], t: float) -> list[float]:
    one, two = math.sqrt(sum(a * a for a in first)), math.sqrt(sum(b * b for b in second))
    cosine = sum(a / one * (b / two) for a, b in zip(first, second, strict=True))
    if abs(cosine) > 0.9995:
        return [(1 - t) * a + t * b for a, b in zip(first, second, strict=True)]
    angle = math.acos(cosine)
    left, right = math.sin(angle - angle * t) / math.sin(angle), math.sin(angle * t) / math.sin(angle)
    return [left * a + right * b for a, b in zip(first, second, strict=True)]


def trimmed(change: list[float], density: float) -> list[float]:
    kept = sorted(range(len(change)), key=lambda i: -abs(change[i]))[: max(1, int(density * len(change)))]
    return [value if i in kept else 0.0 for i, value in enumerate(change)]


def elected(changes: list[list[float]], weights: list[float]) -> list[float]:
    result = []
    for column in zip(*changes, strict=True):
        weighted = [w * c for w, c in zip(weights, column, strict=True)]
        sign = 1 if sum(weighted) >= 0 else -1
        agreeing = [i for i, value in enumerate(weighted) if value * sign > 0]
        divisor = sum(weights[i] for i in agreeing)
        result.append(sum(weighted[i] for i in agreeing) / (divisor or 1.0))
    return result


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0.1, 3.0), min_size=1, max_size=4), st.integers(0, 999))
def test_linear_is_the_weighted_mean(weights, seed):
    states = [state(seed + i) for i in range(len(weights))]
    found = linear(states, weights=tuple(weights))
    expected = {
        name: [
            sum(w * x for w, x in zip(weights, column, strict=True)) / sum(weights)
            for column in zip(*(numbers(s[name]) for s in states), strict=True)
        ]
        for name in ("w", "b")
    }
    close(found, expected)
    assert found["steps"] == 10 + seed
    torch.testing.assert_close(linear(states), uniform_soup(states), rtol=0, atol=0)


@settings(max_examples=25, deadline=None)
@given(st.floats(0, 1), st.integers(0, 999))
def test_slerp_is_the_arc(t, seed):
    first, second = state(seed), state(seed + 1)
    found = slerp([first, second], t=t)
    close(found, {name: arc(numbers(first[name]), numbers(second[name]), t) for name in ("w", "b")})


def test_slerp_keeps_the_length_and_is_straight_between_parallels():
    first, second = {"w": torch.tensor([3.0, 0.0])}, {"w": torch.tensor([0.0, 3.0])}
    assert slerp([first, second], t=0.3)["w"].norm().item() == pytest.approx(3.0)
    straight = slerp([{"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([3.0, 0.01])}], t=0.5)["w"]
    torch.testing.assert_close(straight, torch.tensor([2.0, 0.005]))
    nothing = slerp([{"w": torch.zeros(2)}, {"w": torch.tensor([0.0, 2.0])}], t=0.5)["w"]
    torch.testing.assert_close(nothing, torch.tensor([0.0, 2.0]) * math.sqrt(0.5))  # as mergekit: an angle of pi / 2
    torch.testing.assert_close(slerp([state(0)]), state(0), rtol=0, atol=0)
    with pytest.raises(ConfigError, match="slerp takes two states, 3 given"):
        slerp([state(0)] * 3)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.floats(0.1, 3.0), min_size=1, max_size=4),
    st.sampled_from([0.2, 0.5, 0.75, 1.0]),
    st.floats(0.1, 2.0),
    st.integers(0, 999),
)
def test_ties_trims_elects_and_averages(weights, density, scale, seed):
    states, base = [state(seed + i) for i in range(len(weights))], state(seed + 50)
    for trim, parts in (("tensor", [("w",), ("b",)]), ("network", [("w", "b")])):
        found = ties(states, base, density=density, trim=trim, scale=scale, weights=tuple(weights))
        for names in parts:
            start = [value for name in names for value in numbers(base[name])]
            fine = [[value for name in names for value in numbers(s[name])] for s in states]
            changes = [trimmed([x - y for x, y in zip(one, start, strict=True)], density) for one in fine]
            merged = [y + scale * x for x, y in zip(elected(changes, list(weights)), start, strict=True)]
            for name in names:
                count = base[name].numel()
                close(found, {name: merged[:count]})
                merged = merged[count:]


def test_ties_on_numbers_that_can_be_checked_by_hand():
    base = {"w": torch.zeros(4, dtype=torch.float64)}
    states = [
        {"w": torch.tensor(values, dtype=torch.float64)}
        for values in ([3.0, -2.0, 0.5, 0.1], [-1.0, -4.0, 0.2, 0.3], [2.0, 5.0, -0.1, 0.2])
    ]
    # Of each, the two largest: (3, -2), (-1, -4), (2, 5); signs +, -; means of 3 and 2, of -2 and -4; nothing else.
    torch.testing.assert_close(
        ties(states, base, density=0.5)["w"], torch.tensor([2.5, -3.0, 0.0, 0.0], dtype=torch.float64)
    )


def test_ties_trims_a_network_as_one_vector():
    base = {"w": torch.zeros(3), "b": torch.zeros(3)}
    states = [{"w": torch.tensor([5.0, -4.0, 3.0]), "b": torch.tensor([0.3, -0.2, 0.1])}]
    assert numbers(ties(states, base, density=0.5)["b"]) == [0.0, 0.0, 0.0]
    assert numbers(ties(states, base, density=0.5)["w"]) == [5.0, -4.0, 3.0]
    kept = ties(states, base, density=0.34, trim="tensor")
    assert (numbers(kept["w"]), numbers(kept["b"])[0] > 0) == ([5.0, 0.0, 0.0], True)


def test_task_arithmetic_of_the_base_is_the_base():
    base = state(0)
    torch.testing.assert_close(task_arithmetic([base] * 3, base), base, rtol=0, atol=0)
    torch.testing.assert_close(task_arithmetic([state(1)], base, scale=1.0)["w"], state(1)["w"], rtol=0, atol=0)
    negative = task_arithmetic([state(1)], base, scale=1.0, weights=(-1.0,))
    torch.testing.assert_close(negative["w"], 2 * base["w"] - state(1)["w"])


@pytest.mark.parametrize("by", ["linear", "ties"])
def test_dare_drops_and_enlarges(by):
    base = {"w": torch.zeros(40_000, dtype=torch.float64)}
    states = [{"w": torch.full((40_000,), value, dtype=torch.float64)} for value in (1.0, 2.0)]
    found = dare(states, base, density=0.25, by=by, scale=0.5)["w"]
    # Each entry of the two is dropped by itself: 4 or 8, both or neither, times the scale; or the mean of what is left.
    both = 6.0 if by == "linear" else 3.0
    assert sorted(found.unique().tolist()) == sorted([0.0, 2.0, 4.0, both])
    for value, share in ((0.0, 0.75**2), (2.0, 0.25 * 0.75), (4.0, 0.25 * 0.75), (both, 0.25**2)):
        assert float((found == value).double().mean()) == pytest.approx(share, abs=0.01)


def test_dare_draws_by_name_and_number_and_keeps_all_at_a_density_of_one():
    base, states = state(9), [state(0), state(1)]
    turned = [dict(reversed(s.items())) for s in states]
    first = dare(states, base, seed=3)
    torch.testing.assert_close(
        first, dict(sorted(dare(turned, base, seed=3).items(), key=lambda i: list(first).index(i[0])))
    )
    assert not torch.equal(dare(states, base, seed=4)["w"], first["w"])
    whole = dare(states, base, density=1.0)
    torch.testing.assert_close(whole, task_arithmetic(states, base, scale=1.0), rtol=1e-6, atol=1e-6)
    elections = dare(states, base, density=1.0, by="ties")
    torch.testing.assert_close(elections, ties(states, base, density=1.0), rtol=1e-6, atol=1e-6)


def test_more_elements_than_are_worked_on_at_a_time(monkeypatch):
    states, base = [state(0), state(1)], state(2)
    operators = [linear, slerp, lambda s: task_arithmetic(s, base), lambda s: ties(s, base), lambda s: dare(s, base)]
    whole = [operator(states) for operator in operators]
    monkeypatch.setattr("repertoire.weights._wide.PIECE", 5)
    for operator, expected in zip(operators, whole, strict=True):
        torch.testing.assert_close(operator(states), expected)


def test_complex_weights_are_pairs_of_numbers():
    values = torch.tensor([[1.0, 2.0], [3.0, -1.0]], dtype=torch.float64)
    states = [{"w": torch.view_as_complex(sign * values)} for sign in (1.0, 3.0)]
    base = {"w": torch.zeros(2, dtype=torch.complex128)}
    torch.testing.assert_close(torch.view_as_real(linear(states)["w"]), 2 * values)
    torch.testing.assert_close(torch.view_as_real(ties(states, base, density=1.0)["w"]), 2 * values)


def test_what_does_not_fit_is_refused():
    states, base = [state(0), state(1)], state(2)
    with pytest.raises(ConfigError, match="one number for each of the 2 states, found 1"):
        ties(states, base, weights=(1.0,))
    with pytest.raises(ConfigError, match="must not sum to 0"):
        linear(states, weights=(1.0, -1.0))
    with pytest.raises(ConfigError, match="density must lie in"):
        ties(states, base, density=0.0)
    for operator in (task_arithmetic, ties, dare):
        with pytest.raises(CheckpointError, match="the base is not of the architecture of the states: it lacks b"):
            operator(states, {"w": base["w"], "steps": base["steps"]})

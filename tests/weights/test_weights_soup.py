"""Model soups against means written out, and the greedy recipe against its description."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from repertoire.errors import CheckpointError, ConfigError
from repertoire.weights import LazyState, greedy_soup, refresh_batchnorm, save_state, uniform_soup


def state(seed: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "w": torch.randn(4, 3, generator=generator).to(dtype),
        "b": torch.randn((), generator=generator).to(dtype),
        "steps": torch.tensor(10 + seed),
        "mask": torch.tensor([True, seed % 2 == 0]),
    }


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 6), st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]))
def test_uniform_is_the_mean(count, dtype):
    states = [state(seed, dtype) for seed in range(count)]
    soup = uniform_soup(states)
    assert list(soup) == list(states[0])
    for name in ("w", "b"):
        expected = sum(s[name].double() for s in states) / count
        torch.testing.assert_close(soup[name], expected.to(dtype), rtol=0, atol=0)
    assert soup["steps"] == 10
    assert soup["mask"].tolist() == [True, True]


@pytest.mark.parametrize("count", [2, 3, 7])
def test_the_soup_of_copies_is_the_copy_bit_for_bit(count):
    one = state(0)
    torch.testing.assert_close(uniform_soup([one] * count), one, rtol=0, atol=0)
    soup = greedy_soup([one] * count, lambda _: 0.0)
    torch.testing.assert_close(dict(soup), one, rtol=0, atol=0)
    assert soup.ingredients == tuple(range(count))


def test_order_does_not_matter_to_the_mean():
    states = [state(seed) for seed in range(5)]
    forwards, backwards = uniform_soup(states), uniform_soup(states[::-1])
    torch.testing.assert_close(forwards["w"], backwards["w"], rtol=1e-7, atol=1e-7)


def test_the_states_are_left_alone_and_share_no_memory_with_the_soup():
    states = [{k: v.requires_grad_() if v.is_floating_point() else v for k, v in state(s).items()} for s in range(2)]
    for soup in (uniform_soup(states), greedy_soup(states, lambda _: 0.0), uniform_soup(states[:1])):
        assert not any(tensor.requires_grad for tensor in soup.values())
        for tensor in soup.values():
            tensor.zero_()
    torch.testing.assert_close({k: v.detach() for k, v in states[0].items()}, state(0), rtol=0, atol=0)


def naive_greedy(states: list[dict[str, Tensor]], score) -> list[int]:
    """Recipe 1 of the paper, with every average made from scratch."""
    order = sorted(range(len(states)), key=lambda i: (-score(states[i]), i))
    ingredients: list[int] = []
    for i in order:
        if not ingredients or score(uniform_soup([states[j] for j in [*ingredients, i]])) >= score(
            uniform_soup([states[j] for j in ingredients])
        ):
            ingredients.append(i)
    return ingredients


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 7), st.integers(0, 999))
def test_greedy_follows_the_recipe(count, seed):
    states = [state(seed + i, torch.float64) for i in range(count)]
    goal = state(seed + 1000, torch.float64)["w"] * 0.3

    def score(s: Mapping[str, Tensor]) -> float:
        return -float((s["w"] - goal).square().sum())

    soup = greedy_soup(states, score)
    assert list(soup.ingredients) == naive_greedy(states, score)
    assert soup.scores == tuple(score(s) for s in states)
    assert soup.score == pytest.approx(score(soup))
    assert soup.score >= max(soup.scores)
    torch.testing.assert_close(dict(soup)["w"], uniform_soup([states[i] for i in soup.ingredients])["w"])


def test_greedy_scores_each_state_and_each_average_once():
    calls = []
    greedy_soup([state(seed) for seed in range(6)], lambda s: calls.append(1) or float(s["w"].sum()))
    assert len(calls) == 2 * 6 - 1


def test_an_average_that_scores_the_same_is_kept_and_a_worse_one_is_not():
    states = [{"w": torch.tensor(float(w))} for w in (1, 3, 8)]
    assert greedy_soup(states, lambda _: 1.0).ingredients == (0, 1, 2)
    assert greedy_soup(states, lambda s: float(s["w"])).ingredients == (2,)


def test_lazy_states_give_the_same_soup(tmp_path):
    states = [state(seed) for seed in range(4)]
    for i, each in enumerate(states):
        save_state(each, tmp_path / f"{i}.safetensors")
    lazy = [LazyState(tmp_path / f"{i}.safetensors") for i in range(4)]
    torch.testing.assert_close(uniform_soup(lazy), uniform_soup(states), rtol=0, atol=0)

    def score(s: Mapping[str, Tensor]) -> float:
        return float(s["w"].sum())

    torch.testing.assert_close(dict(greedy_soup(lazy, score)), dict(greedy_soup(states, score)), rtol=0, atol=0)


def test_lazy_states_are_read_tensor_by_tensor(tmp_path, monkeypatch):
    for i in range(3):
        save_state(state(i), tmp_path / f"{i}.safetensors")
    reads: list[str] = []
    read = LazyState.__getitem__
    monkeypatch.setattr(LazyState, "__getitem__", lambda self, name: reads.append(name) or read(self, name))
    uniform_soup([LazyState(tmp_path / f"{i}.safetensors") for i in range(3)])
    assert [name for name, _ in itertools.groupby(reads)] == list(LazyState(tmp_path / "0.safetensors"))
    assert {name: reads.count(name) for name in reads} == {"w": 4, "b": 4, "steps": 1, "mask": 1}


def test_states_that_do_not_fit_are_all_named():
    one = state(0)
    lacking = {name: tensor for name, tensor in one.items() if name != "b"}
    other = one | {"w": torch.zeros(2, 2), "extra": torch.zeros(1)}
    with pytest.raises(CheckpointError) as caught:
        uniform_soup([one, lacking, other])
    message = str(caught.value)
    assert "state 1 lacks b" in message
    assert "state 2 also has extra" in message
    assert "state 2 has other shapes: w [2, 2], expected [4, 3]" in message
    with pytest.raises(CheckpointError, match="state 1 lacks b"):
        greedy_soup([one, lacking], lambda _: 0.0)


@pytest.mark.parametrize("states", [[], ()])
def test_no_states(states):
    with pytest.raises(ConfigError, match="states is empty"):
        uniform_soup(states)
    with pytest.raises(ConfigError, match="states is empty"):
        greedy_soup(states, lambda _: 0.0)


def test_a_score_that_is_no_number():
    with pytest.raises(ConfigError, match="score of state 0 is not a number"):
        greedy_soup([state(0)], lambda _: float("nan"))


def test_states_may_be_those_of_the_model_that_scores():
    """`state_dict()` shares its memory with the model: to score one state must not change another."""
    models = [torch.nn.Linear(1, 1, bias=False) for _ in range(3)]
    for model, weight in zip(models, (0.0, 3.0, 9.0), strict=True):
        torch.nn.init.constant_(model.weight, weight)
    seen = []

    def score(state):
        models[0].load_state_dict(state)
        seen.append(float(models[0].weight))
        return -abs(seen[-1] - 2)

    soup = greedy_soup([dict(model.state_dict()) for model in models], score)
    assert seen == [0.0, 3.0, 9.0, 1.5, 4.0]
    assert soup.ingredients == (1, 0)
    assert float(soup["weight"]) == 1.5


def test_what_is_returned_is_what_was_scored():
    """Batch statistics that are measured while scoring are part of the soup."""
    torch.manual_seed(0)
    models = [torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4)) for _ in range(3)]
    inputs, wanted = torch.randn(64, 4), torch.randn(64, 4)

    def measured(state, refresh):
        models[0].load_state_dict(state)
        if refresh:
            refresh_batchnorm(models[0], [inputs])
            state.update(models[0].state_dict())
        return -(models[0].eval()(inputs) - wanted).square().mean().item()

    soup = greedy_soup([model.state_dict() for model in models], lambda state: measured(state, True))
    assert measured(dict(soup), False) == pytest.approx(soup.score, abs=1e-6)

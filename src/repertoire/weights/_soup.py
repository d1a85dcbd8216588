"""Model soups: averages of the weights of models that were fine-tuned from one start."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from repertoire.errors import ConfigError
from repertoire.registry import register
from repertoire.weights._state import State, accumulator, check_alike, is_averaged

__all__ = ["Soup", "greedy_soup", "uniform_soup"]


class Soup(dict[str, Tensor]):
    """A state, and what it was made of.

    Attributes:
        ingredients: positions of the averaged states, in the order in which they were added.
        scores: the score of every state by itself.
        score: the score of the soup.
    """

    def __init__(self, state: State, ingredients: tuple[int, ...], scores: tuple[float, ...], score: float) -> None:
        super().__init__(state)
        self.ingredients = ingredients
        self.scores = scores
        self.score = score


@register("weight-operators", "uniform-soup", paper="model-soups")
@torch.no_grad()
def uniform_soup(states: Sequence[State]) -> dict[str, Tensor]:
    r"""Uniform soup: the mean of the weights of several models.

    Wortsman et al., *Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing
    inference time* (2022):

    .. math::
        \theta = \frac{1}{k} \sum_{i=1}^{k} \theta_i

    It is meant for models fine-tuned from the same weights; models trained from different starts lie in different
    valleys, and their mean is of no use. Tensor by tensor, so that beside the result only one tensor of one state is
    held when the states are lazy. Sums are in float64: the soup of a state with itself is that state, bit for bit.

    Means of weights do not have the mean of the statistics: networks with batch normalisation want
    :func:`repertoire.weights.refresh_batchnorm` afterwards.

    Args:
        states: name to tensor, of one architecture; `state_dict()` of models, or `LazyState` of files. Integers and
            booleans, such as counters of batches, are taken from the first.

    Returns:
        New tensors in the first state's order, dtypes and devices.

    Raises:
        ConfigError: there are no states.
        CheckpointError: names or shapes differ; all that do are named.

    Example:
        >>> import torch
        >>> from repertoire.weights import uniform_soup
        >>> uniform_soup([{"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([3.0, 6.0])}])
        {'w': tensor([2., 4.])}
    """
    check_alike(states)
    soup: dict[str, Tensor] = {}
    for name in states[0]:
        total = _Total({name: states[0][name]})
        for state in states:
            total.add(state)
        soup |= total.mean()
    return soup


@register("weight-operators", "greedy-soup", paper="model-soups")
@torch.no_grad()
def greedy_soup(states: Sequence[State], score: Callable[[dict[str, Tensor]], float]) -> Soup:
    """Greedy soup: the mean of the models that help, on held-out data.

    Wortsman et al., *Model soups* (2022), recipe 1: the states are sorted by their own scores, best first; each is
    added to the average if that scores no less with it than without. The soup is therefore at least as good as the
    best single model, on the data that `score` looks at: which must be held out from training, and from any test.

    Calls `score` 2k - 1 times for k states. Holds a copy of the states that are dictionaries, which may be those of a
    model that `score` loads others into; the running sum (float64), two averages and one tensor of a state.

    Args:
        states: as :func:`uniform_soup` takes them.
        score: a state to a number, higher being better. What it writes into the state that it is given is part of the
            soup: for networks with batch normalisation it should load the state, call
            :func:`repertoire.weights.refresh_batchnorm`, measure, and `state.update(model.state_dict())`, so that what
            is returned is what was measured.

    Returns:
        The state, a dictionary with `ingredients`, `scores` and `score`.

    Raises:
        ConfigError: there are no states, or a score is no number.
        CheckpointError: names or shapes differ; all that do are named.

    Example:
        >>> import torch
        >>> from repertoire.weights import greedy_soup
        >>> states = [{"w": torch.tensor(w)} for w in (0.0, 3.0, 9.0)]
        >>> soup = greedy_soup(states, score=lambda state: -abs(float(state["w"]) - 2))  # 2 is best
        >>> soup.ingredients, soup["w"]
        ((1, 0), tensor(1.5000))
    """
    check_alike(states)
    # Copied: `model.state_dict()` shares its memory with the model, and `score` loads another state into that.
    states = [_copied(state) if isinstance(state, dict) else state for state in states]
    best, scores = -math.inf, []
    soup: dict[str, Tensor] = {}
    for i, state in enumerate(states):
        given = _copied(state)
        scores.append(_number(score(given), f"state {i}"))
        if not soup or scores[-1] > best:
            best, soup = scores[-1], _copied(given)
    order = sorted(range(len(states)), key=lambda i: -scores[i])  # stable: of equals, the first given comes first
    chosen, total = order[:1], _Total(states[0])
    total.add(states[order[0]])
    for i in order[1:]:
        given = total.mean(states[i])
        value = _number(score(given), f"the average with state {i}")
        if value >= best:
            best, soup = value, _copied(given)
            chosen.append(i)
            total.add(states[i])
    return Soup(soup, tuple(chosen), tuple(scores), best)


def _copied(state: State) -> dict[str, Tensor]:
    return {name: state[name].clone() for name in state}


class _Total:
    """A running sum of states, in wide precision."""

    def __init__(self, first: State) -> None:
        self.count = 0
        self.sums: dict[str, Tensor] = {}
        self.kept: dict[str, Tensor] = {}
        self.kinds: dict[str, tuple[torch.device, torch.dtype]] = {}
        for name in first:
            tensor = first[name]
            self.kinds[name] = tensor.device, tensor.dtype
            if is_averaged(tensor):
                self.sums[name] = torch.zeros_like(tensor, dtype=accumulator(tensor))
            else:
                self.kept[name] = tensor.clone()

    def add(self, state: State) -> None:
        for name, total in self.sums.items():
            total += state[name].to(total)
        self.count += 1

    def mean(self, extra: State | None = None) -> dict[str, Tensor]:
        """The mean of what was added, and of one state more if there is one; in memory of its own."""
        result = {}
        for name, (device, dtype) in self.kinds.items():
            if name in self.kept:
                result[name] = self.kept[name].clone()
                continue
            total = self.sums[name]
            total = total.clone() if extra is None else total + extra[name].to(total)
            result[name] = total.div_(self.count + (extra is not None)).to(device, dtype)
        return result


def _number(value: float, what: str) -> float:
    value = float(value)
    if math.isnan(value):
        raise ConfigError(f"the score of {what} is not a number")
    return value

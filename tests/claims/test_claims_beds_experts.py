"""The beds of merging: what experts share, and marks that agree with the digit as often as they are said to."""

from __future__ import annotations

import pytest
import torch

from repertoire.claims import Budget
from repertoire.claims.beds.experts import experts, mean
from repertoire.claims.beds.marks import MARKS, environment, marked
from repertoire.weights import linear

SMOKE = Budget("smoke")


def test_experts_start_from_one_base_and_keep_its_heads():
    two = experts(SMOKE, 1000, ("digits", "garments"))
    base, states = two.named
    assert all(not torch.equal(state["0.0.weight"], base["0.0.weight"]) for state in states)
    x = two.rows[1].test_x[:5]
    network = two.network(states[1], 1)
    torch.testing.assert_close(network[1].weight, two.heads[1].weight)
    torch.testing.assert_close(network(x), two.heads[1](network[0](x)))
    scored = two.scored(states[0])
    chosen, state = two.best(lambda share: linear(states, weights=(1 - share, share)), (0.0, 1.0))
    assert state.keys() == base.keys()
    assert mean(two.scored(state, "val")) == max(mean(two.scored(one, "val")) for one in states)
    assert chosen in (0.0, 1.0)
    assert len(scored) == 2


def test_marks_have_the_colour_of_the_digit_as_often_as_is_asked():
    y = torch.arange(10).repeat(400)
    chances = (1.0, 0.5, *(0.0,) * (MARKS - 2))
    marks = marked(torch.zeros(len(y), 1), y, chances, 0)[:, 1:].view(len(y), MARKS, 3)
    for number, chance in enumerate(chances):
        own = torch.stack([marks[y == c][:, number] for c in range(10)])
        most = torch.tensor([int((rows[:, None] == rows).all(2).sum(1).max()) for rows in own]) / 400
        # A mark that is drawn has the digit's colour in a tenth of the cases, too.
        assert most.mean().item() == pytest.approx(chance + (1 - chance) / 10, abs=0.06)
    torch.testing.assert_close(
        marked(torch.zeros(5, 1), y[:5], chances, 0), marked(torch.zeros(5, 1), y[:5], chances, 0)
    )
    rows, labels = environment(SMOKE, chances, 0)
    assert rows.shape == (len(labels), 196 + 3 * MARKS)

"""Black boxes with a known answer, and the interpreters that are graded on them."""

from __future__ import annotations

import math

import pytest
import torch

from repertoire.errors import ConfigError
from repertoire.explain import BlackBox, FunctionTask, function_tasks, interpret, score_interpretation

GRID = torch.linspace(-10, 10, 4001, dtype=torch.float64)
FITS = ["piecewise", "spline", "polynomial"]


def test_functions_repeat_and_are_of_one_scale():
    tasks, again = function_tasks(60, seed=3), function_tasks(60, seed=3)
    assert len({task.description for task in tasks}) == 60
    for task, other in zip(tasks, again, strict=True):
        assert task.description == other.description
        torch.testing.assert_close(task(GRID), other(GRID), rtol=0, atol=0)
        assert task.clean(GRID).isfinite().all()
        assert float(task.clean(GRID).std()) == pytest.approx(1, abs=0.02)
    assert function_tasks(1, seed=4)[0].description != tasks[0].description
    words = " ".join(task.description for task in function_tasks(200, composed=1.0))
    assert all(word in words for word in (" of ", " plus ", " times "))
    assert " of " not in " ".join(task.description for task in function_tasks(50, composed=0.0))


def test_corruption_is_local():
    for task in function_tasks(30, seed=1):
        assert task.corrupted is not None
        low, high = task.corrupted
        assert -10 <= low < high <= 10
        assert 1 <= high - low <= 3
        inside = (low < GRID) & (high > GRID)
        assert torch.equal(task.inside(GRID), inside)
        torch.testing.assert_close(task(GRID)[~inside], task.clean(GRID)[~inside], rtol=0, atol=0)
        assert (task(GRID)[inside] == task.level).all()
    clean = function_tasks(2, corrupted=False)[1]
    assert clean.corrupted is None
    torch.testing.assert_close(clean(GRID), clean.clean(GRID))


def test_a_black_box_keeps_its_budget():
    task = function_tasks(1, noise=0.5)[0]
    box = BlackBox(task, 5000, seed=1)
    seen = box(GRID)
    assert float((seen - task(GRID)).std()) == pytest.approx(0.5, abs=0.03)
    torch.testing.assert_close(BlackBox(task, 5000, seed=1)(GRID), seen, rtol=0, atol=0)
    assert box.asked == 4001
    with pytest.raises(ConfigError, match="1000 more queries exceed the budget of 5000, 4001 are used"):
        box(GRID[:1000])
    assert box.asked == 4001


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("queries", ["passive", "adaptive"])
def test_interpreters_spend_their_budget_and_find_what_is_simple(fit, queries):
    line = FunctionTask("line", lambda x: 2 * x - 3)
    box = BlackBox(line, 41)
    found = interpret(box, fit, queries)
    assert box.asked == 41
    torch.testing.assert_close(found(GRID), line(GRID), rtol=1e-4, atol=1e-4)
    score = score_interpretation(line, found)
    assert score.success
    assert math.isnan(score.inside)


def test_adaptive_queries_go_to_a_jump():
    step = FunctionTask("step", lambda x: (x > 1.234).double())
    asked: list[torch.Tensor] = []

    class Listening(BlackBox):
        def __call__(self, x):
            asked.append(x)
            return super().__call__(x)

    found = {how: interpret(Listening(step, 40), "piecewise", how) for how in ("passive", "adaptive")}
    points = torch.cat(asked[1:])
    assert (points - 1.234).abs().min() < 0.05  # the points of the grid are 1.05 apart
    errors = {how: score_interpretation(step, each).everywhere for how, each in found.items()}
    assert errors["adaptive"] < 0.2 * errors["passive"]


def test_scores():
    task = FunctionTask("two", lambda x: torch.full_like(x, 2.0), corrupted=(0.0, 2.0), level=4.0)
    score = score_interpretation(task, task.clean, points=1000)
    mean = 0.9 * 4 + 0.1 * 16
    assert score.inside == pytest.approx(4 / mean)
    assert score.outside == 0
    assert score.everywhere == pytest.approx(0.1 * 4 / mean)
    assert score.success
    assert not score_interpretation(task, torch.zeros_like).success


def test_arguments_that_do_not_fit():
    box = BlackBox(function_tasks(1)[0], 7)
    for call, message in (
        (lambda: function_tasks(-1), "count and noise must be at least 0"),
        (lambda: function_tasks(1, composed=2), r"composed in \[0, 1\]"),
        (lambda: interpret(box, "forest"), "fit must be piecewise, spline or polynomial"),
        (lambda: interpret(box, queries="random"), "queries must be passive or adaptive"),
        (lambda: interpret(box), "budget of at least 8, found 7"),
        (lambda: score_interpretation(function_tasks(1)[0], torch.sin, 1), "points must be at least 2"),
    ):
        with pytest.raises(ConfigError, match=message):
            call()

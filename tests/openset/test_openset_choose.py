from __future__ import annotations

import numpy as np
import pytest
import torch

from repertoire.errors import ConfigError, ShapeError, UnknownName
from repertoire.metrics import auroc
from repertoire.openset import NearestNeighbours, build_score, choose

GENERATOR = np.random.default_rng(0)
Y = np.arange(120) % 4
X = 4 * np.eye(4, 6)[Y] + GENERATOR.normal(size=(120, 6))
WEIGHT = np.eye(4, 6)
F = X @ WEIGHT.T


def test_each_class_is_held_out_once_and_measured_as_by_hand():
    other = np.arange(120) % 3 == 0
    fit_on = (X[other], F[other], Y[other])
    found = choose(X[~other], F[~other], Y[~other], ("knn:neighbours=3", "energy"), fit_on=fit_on)
    assert sorted(c for group in found.groups for c in group) == [0, 1, 2, 3]
    for each in found.scores:
        for group, value in zip(found.groups, each.groups, strict=True):
            (held,) = group
            kept = [c for c in range(4) if c != held]
            if each.spec == "energy":
                scores = np.log(np.exp(F[~other][:, kept]).sum(1))
            else:
                scores = NearestNeighbours(3).fit(X[other][Y[other] != held])(X[~other])
            assert value == pytest.approx(auroc(scores, Y[~other] != held))
        assert each.auroc == pytest.approx(np.mean(each.groups))
        assert each.interval[0] <= each.auroc <= each.interval[1]
    assert found.best == max(found.scores, key=lambda each: each.auroc).spec == found.scores[0].spec


def test_a_score_that_says_nothing_is_not_chosen():
    """Unknown classes differ in directions that the logits do not see."""
    noise = np.zeros_like(F) + GENERATOR.normal(size=F.shape)
    assert choose(X, noise, Y, ("max-softmax", "energy", "knn")).best == "knn"


def test_with_more_classes_than_folds_they_go_in_groups():
    y = np.arange(240) % 12
    x = 5 * np.eye(12)[y] + GENERATOR.normal(size=(240, 12))
    found = choose(x, x, y, ("max-logit",), folds=5)
    assert sorted(map(len, found.groups)) == [2, 2, 2, 3, 3]
    assert choose(x, x, y, ("max-logit",), folds=5) == found


def test_the_last_layer_loses_the_rows_of_classes_held_out():
    """Were they still there, rows and logits would not fit, and that is refused."""
    found = choose(X, F, Y, ("costarr", "vim:dimensions=2"), weight=WEIGHT, bias=np.zeros(4))
    assert all(not each.reason for each in found.scores)
    assert min(each.auroc for each in found.scores) > 0.7


def test_what_cannot_be_used_says_why_and_comes_last():
    two = Y < 2
    found = choose(X[two], F[two][:, :2], Y[two], ("max-softmax", "costarr", "energy"))
    assert found.best == "energy"
    reasons = {each.spec: each.reason for each in found.scores}
    assert "needs 2 classes" in reasons["max-softmax"]
    assert "weight of a linear last layer" in reasons["costarr"]
    assert [bool(each.reason) for each in found.scores] == [False, True, True]
    with pytest.raises(ConfigError, match=r"no score can be used: max-softmax: .*; costarr: "):
        choose(X[two], F[two][:, :2], Y[two], ("max-softmax", "costarr"))


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="two or more"):
        choose(X, F, np.zeros(120, int))
    with pytest.raises(ConfigError, match="name one or more"):
        choose(X, F, Y, ())
    with pytest.raises(UnknownName, match="energy"):
        choose(X, F, Y, ("enerjy",))
    with pytest.raises(ShapeError, match="same samples"):
        choose(X[:5], F, Y)
    with pytest.raises(ShapeError, match=r"0\.\.1"):
        choose(X, F[:, :2], Y)
    with pytest.raises(ConfigError, match="this network has none"):
        build_score("vim")


def test_the_last_layer_may_be_that_of_a_network_as_it_is():
    """Parameters with a gradient, in half precision or not."""
    x, y = np.random.default_rng(0).normal(size=(60, 3)), np.arange(60) % 3
    layer = torch.nn.Linear(3, 3)
    logits = layer(torch.from_numpy(x).float())
    found = [
        choose(x, logits, y, ("costarr", "mc-dropout"), weight=weight, bias=bias)
        for weight, bias in (
            (layer.weight, layer.bias),
            (layer.weight.detach().numpy(), layer.bias.detach().numpy()),
        )
    ]
    assert found[0] == found[1]
    half = choose(x, logits, y, ("costarr",), weight=layer.weight.bfloat16(), bias=layer.bias.bfloat16())
    assert half.scores[0].auroc == pytest.approx(
        next(each.auroc for each in found[0].scores if each.spec == "costarr"), abs=0.05
    )

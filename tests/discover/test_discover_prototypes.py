from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from repertoire.discover import ClassRelation, ProtoGCD, RankStatistics, SimGCD
from repertoire.discover._network import agreement, spread_out
from repertoire.discover._prototypes import confident_targets, separation
from repertoire.discover._relation import relation_loss
from repertoire.errors import ConfigError


def unit(count: int, width: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))


def test_separation_is_the_mean_of_logs_over_prototypes_one_by_one():
    mu = unit(5, 3)
    total = 0.0
    for i in range(5):
        total += math.log(sum(math.exp(float(mu[i] @ mu[j]) / 0.1) for j in range(5) if j != i) / 4) / 5
    assert float(separation(mu, 0.1)) == pytest.approx(total)


def test_separation_is_least_for_prototypes_that_look_away_from_each_other():
    simplex = F.normalize(torch.eye(4, dtype=torch.float64) - 0.25)
    assert float(separation(simplex, 0.1)) == pytest.approx(-1 / 3 / 0.1)
    assert float(separation(unit(4, 4), 0.1)) > -1 / 3 / 0.1


def test_the_surest_rows_are_made_hard_and_no_other():
    p = torch.tensor([[0.5, 0.3, 0.2], [0.4, 0.4, 0.2], [0.2, 0.1, 0.7], [0.1, 0.46, 0.44]])
    found = confident_targets(p, 0.5)
    # Ratios of the two largest: 1.67, 1, 3.5, 1.05.
    expected = torch.tensor([[1.0, 0, 0], [0.4, 0.4, 0.2], [0, 0, 1.0], [0.1, 0.46, 0.44]])
    torch.testing.assert_close(found, expected)
    assert torch.equal(confident_targets(p, 0.0), p)
    assert torch.equal(confident_targets(p, 1.0).amax(1), torch.ones(4))


def test_agreement_swaps_the_views():
    logits, targets = torch.randn(2, 2, 3, 4, generator=torch.Generator().manual_seed(0)).unbind(0)
    targets = targets.softmax(2)
    total = 0.0
    for view in range(2):
        for i in range(3):
            total -= float((targets[1 - view, i] * logits[view, i].log_softmax(0)).sum()) / 6
    assert float(agreement(logits, targets)) == pytest.approx(total, rel=1e-5)


def test_an_even_mean_costs_nothing_and_a_collapse_log_k():
    assert float(spread_out(50 * torch.eye(4)[None])) == pytest.approx(0, abs=1e-5)
    assert float(spread_out(50 * torch.eye(4)[:1].expand(2, 4, 4))) == pytest.approx(math.log(4), abs=1e-5)


def test_relations_are_kept_more_by_rows_that_look_known():
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    before = torch.randn(6, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    rows, masses = [], []
    for i in range(6):
        old = [math.exp(v) for v in before[i].tolist()]
        now = [math.exp(v) for v in logits[i].tolist()]
        rows.append(-sum(o / sum(old) * math.log(n / sum(now[:3])) for o, n in zip(old, now[:3], strict=True)))
        masses.append(sum(now[:3]) / sum(now))
    mean = sum(masses) / 6
    weighted = sum(row * mass / mean for row, mass in zip(rows, masses, strict=True)) / 6
    assert float(relation_loss(logits, before)) == pytest.approx(weighted)
    assert float(relation_loss(logits, before, "affinity")) == pytest.approx(weighted)
    assert float(relation_loss(logits, before, "constant")) == pytest.approx(sum(rows) / 6)


def test_the_weight_has_a_gradient_only_where_it_is_learned():
    before = torch.randn(6, 3, generator=torch.Generator().manual_seed(3))

    def slope(weights) -> torch.Tensor:
        logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(2), requires_grad=True)
        relation_loss(logits, before, weights).backward()
        return logits.grad[:, 3:]

    # Logits of new classes are in nothing but the weight.
    assert float(slope("learned").abs().max()) > 0
    assert float(slope("affinity").abs().max()) == 0


def test_with_soft_targets_and_nothing_apart_it_is_the_objective_before():
    truth = torch.arange(5).repeat_interleave(16)
    x = 4 * torch.eye(5)[truth] + torch.randn(80, 5, generator=torch.Generator().manual_seed(0))
    y = torch.where(truth < 3, truth, -1)
    options = {"classes": 5, "epochs": 2, "hidden": 8, "random_state": 3}
    soft = ProtoGCD(first=0, last=0, apart=0, teacher_temperature=0.07, **options).fit(x, y)
    plain = SimGCD(teacher_temperature=0.07, **options).fit(x, y)
    torch.testing.assert_close(torch.tensor(soft.outlier_scores_), torch.tensor(plain.outlier_scores_))


def test_new_rows_are_of_no_known_class_where_none_can_be():
    truth = torch.arange(5).repeat_interleave(16)
    x = torch.randn(80, 5, generator=torch.Generator().manual_seed(0)) + torch.eye(5)[truth]
    y = torch.where(truth < 3, truth, -1)
    options = {"classes": 5, "mixed": False, "epochs": 2, "hidden": 8}
    for found in (ClassRelation(pretraining=2, **options), RankStatistics(largest=1, **options)):
        assert (found.fit(x, y).labels_[y < 0] >= 3).all()
        assert found.probabilities_[y < 0][:, :3].max() == 0


def test_options_out_of_range_are_refused():
    with pytest.raises(ConfigError, match="supervised"):
        ProtoGCD(supervised=1.5)
    with pytest.raises(ConfigError, match="weights must be"):
        ClassRelation(weights="none")

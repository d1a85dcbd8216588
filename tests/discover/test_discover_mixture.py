from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal, Wishart

from repertoire.discover import SemiSupervisedGMM
from repertoire.discover._mixture import Prior, expected, log_marginal, maximised, posterior
from repertoire.metrics import clustering_accuracy
from repertoire.ops import pinned_kmeans

EYE = torch.eye(2, dtype=torch.float64)
PRIOR = Prior(torch.zeros(2, dtype=torch.float64), 0.5, 2 * EYE, 5.0)


def blobs(classes: int = 6, each: int = 40, known: int = 3, apart: float = 6.0, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    truth = torch.arange(classes).repeat_interleave(each)
    x = apart * torch.eye(classes, 8)[truth] + torch.randn(len(truth), 8, generator=generator)
    seen = (truth < known) & (torch.arange(len(truth)) % each < each // 2)
    return x, torch.where(seen, truth, -1), truth


def test_the_marginal_likelihood_is_that_of_drawn_means_and_covariances():
    x = torch.tensor([[0.5, -0.2], [1.0, 0.3], [0.1, 0.4]], dtype=torch.float64)
    torch.manual_seed(0)
    # Precisions of an inverse Wishart covariance are Wishart.
    precisions = Wishart(torch.tensor(PRIOR.freedom), precision_matrix=PRIOR.scatter.float()).sample((40_000,)).double()
    covariances = torch.linalg.inv(precisions)
    means = MultivariateNormal(PRIOR.mean.expand(40_000, 2), covariances / PRIOR.strength).sample()
    likelihood = MultivariateNormal(means, covariances).log_prob(x[:, None]).sum(0)
    drawn = float(likelihood.logsumexp(0) - math.log(40_000))
    assert log_marginal(x, PRIOR) == pytest.approx(drawn, abs=0.05)


def test_the_marginal_likelihood_of_rows_one_by_one_is_that_of_all():
    """Each row given those before it, by the posterior as the next prior."""
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    prior, total = PRIOR, 0.0
    for row in x:
        total += log_marginal(row[None], prior)
        away = row - prior.mean
        strength = prior.strength + 1
        prior = Prior(
            prior.mean + away / strength,
            strength,
            prior.scatter + prior.strength / strength * torch.outer(away, away),
            prior.freedom + 1,
        )
    assert log_marginal(x, PRIOR) == pytest.approx(total)


def test_expectation_maximisation_never_lowers_the_posterior_and_labelled_rows_stay():
    x, labels, _ = blobs(apart=2.0)
    x = x[:, :2].double()
    groups = pinned_kmeans(x.float(), 5, labels, starts=1, generator=torch.Generator().manual_seed(0)).assignment
    mixture = maximised(x, torch.nn.functional.one_hot(groups).double(), PRIOR)
    values = []
    for _ in range(15):
        responsibility, _ = expected(x, labels, mixture)
        assert torch.equal(responsibility[labels >= 0].argmax(1), labels[labels >= 0])
        assert float(responsibility[labels >= 0].amax(1).min()) == 1.0
        values.append(posterior(x, labels, mixture, PRIOR))
        mixture = maximised(x, responsibility, PRIOR)
    assert all(after >= before - 1e-9 for before, after in itertools.pairwise(values)), values
    assert values[-1] > values[0] + 1


def test_responsibilities_agree_with_densities_one_by_one():
    x, labels, _ = blobs(3, 5, 2)
    x = x[:, :2].double()
    mixture = maximised(x, torch.nn.functional.one_hot(torch.arange(15) % 3).double(), PRIOR)
    found, _ = expected(x, torch.full_like(labels, -1), mixture)
    for i in range(len(x)):
        densities = [
            float(w) * math.exp(float(MultivariateNormal(m, c).log_prob(x[i])))
            for w, m, c in zip(*mixture, strict=True)
        ]
        expected_row = [d / sum(densities) for d in densities]
        assert found[i].tolist() == pytest.approx(expected_row)


@pytest.mark.parametrize("starting", [(1.0,), (4.0,)])
def test_the_number_is_found_from_too_few_and_from_too_many(starting):
    x, labels, truth = blobs()
    found = SemiSupervisedGMM(starting=starting).fit(x, labels)
    assert found.n_classes_ == 6
    assert clustering_accuracy(found.labels_, truth.numpy()).all > 0.97


def test_without_moves_the_number_is_that_of_the_start():
    x, labels, _ = blobs()
    found = SemiSupervisedGMM(split_merge=False, starting=(1.0, 3.0)).fit(x, labels)
    assert found.n_classes_interval_ == (3, 9)


def test_rows_that_are_all_alike_are_one_group_and_no_error():
    y = torch.tensor([0] * 5 + [1] * 5 + [-1] * 10)
    found = SemiSupervisedGMM().fit(torch.ones(20, 6), y)
    assert found.labels_[:10].tolist() == y[:10].tolist()
    assert np.isfinite(found.outlier_scores_).all()

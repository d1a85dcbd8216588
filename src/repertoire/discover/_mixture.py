"""Discovery by a Gaussian mixture that splits and merges its components until their number fits."""

from __future__ import annotations

import math
from typing import Annotated, NamedTuple

import torch
from torch import Tensor
from torch.special import multigammaln

from repertoire.discover._base import Discoverer, Found, reduced
from repertoire.ops import pinned_kmeans
from repertoire.ranges import AtLeast, Between, Positive
from repertoire.registry import register

__all__ = ["Mixture", "Prior", "SemiSupervisedGMM", "expected", "log_marginal", "maximised", "posterior"]


class Prior(NamedTuple):
    """A normal-inverse-Wishart prior of a mean and a covariance.

    Attributes:
        mean: `[d]`, where means lie.
        strength: how many rows that counts for.
        scatter: `[d, d]`, where scatter matrices lie.
        freedom: how many rows that counts for, more than d - 1.
    """

    mean: Tensor
    strength: float
    scatter: Tensor
    freedom: float


class Mixture(NamedTuple):
    """Components: weights `[K]`, means `[K, d]`, covariances `[K, d, d]`."""

    weights: Tensor
    means: Tensor
    covariances: Tensor


def expected(x: Tensor, labels: Tensor, mixture: Mixture) -> tuple[Tensor, float]:
    """Responsibilities `[N, K]` of float64 rows, one-hot for those with a label, and the log-likelihood.

    That of a row with a label is of the row and its label.
    """
    factors = torch.linalg.cholesky(mixture.covariances)
    # [K, d, N]
    white = torch.linalg.solve_triangular(factors, (x.T - mixture.means[:, :, None]), upper=False)
    half = factors.diagonal(dim1=1, dim2=2).log().sum(1)
    log_p = -0.5 * white.square().sum(1) - half[:, None] - 0.5 * x.shape[1] * math.log(2 * math.pi)
    joint = (log_p + mixture.weights.clamp_min(1e-300).log()[:, None]).T
    seen = labels >= 0
    total = joint.logsumexp(1)
    responsibility = (joint - total[:, None]).exp()
    responsibility[seen] = torch.nn.functional.one_hot(labels[seen], joint.shape[1]).to(x.dtype)
    return responsibility, float(total[~seen].sum() + joint[seen].gather(1, labels[seen, None]).sum())


def maximised(x: Tensor, responsibility: Tensor, prior: Prior) -> Mixture:
    """The mixture of the largest posterior density, for responsibilities `[N, K]`."""
    counts = responsibility.sum(0)
    means = responsibility.T @ x / counts.clamp_min(1e-300)[:, None]
    moments = torch.einsum("nk,ni,nj->kij", responsibility, x, x)
    scatters = moments - counts[:, None, None] * means[:, :, None] * means[:, None, :]
    away = means - prior.mean
    pull = (prior.strength * counts / (prior.strength + counts))[:, None, None]
    scatters = scatters + prior.scatter + pull * away[:, :, None] * away[:, None, :]
    width = x.shape[1]
    covariances = scatters / (prior.freedom + counts + width + 2)[:, None, None]
    covariances = (covariances + covariances.mT) / 2
    centres = (prior.strength * prior.mean + counts[:, None] * means) / (prior.strength + counts)[:, None]
    return Mixture(counts / counts.sum(), centres, covariances)


def log_prior(mixture: Mixture, prior: Prior) -> float:
    """Log density of means and covariances, up to a constant for each component."""
    width = mixture.means.shape[1]
    factors = torch.linalg.cholesky(mixture.covariances)
    log_determinants = 2 * factors.diagonal(dim1=1, dim2=2).log().sum(1)
    away = (mixture.means - prior.mean)[:, :, None]
    white = torch.linalg.solve_triangular(factors, away, upper=False).square().sum((1, 2))
    traces = torch.cholesky_solve(prior.scatter.expand_as(factors), factors).diagonal(dim1=1, dim2=2).sum(1)
    powers = (prior.freedom + width + 2) * log_determinants
    return float(-0.5 * (powers + traces + prior.strength * white).sum())


def posterior(x: Tensor, labels: Tensor, mixture: Mixture, prior: Prior) -> float:
    """What expectation-maximisation never lowers: log-likelihood and log prior."""
    return expected(x, labels, mixture)[1] + log_prior(mixture, prior)


def log_marginal(x: Tensor, prior: Prior) -> float:
    r"""Log probability density of rows `[N, d]` of one component, with mean and covariance integrated out.

    Murphy, *Conjugate Bayesian Analysis of the Gaussian Distribution* (2007), equation 266:

    .. math::
        \log p(X) = -\tfrac{N d}{2} \log \pi + \log \frac{\Gamma_d(\nu_N / 2)}{\Gamma_d(\nu_0 / 2)}
        + \tfrac{\nu_0}{2} \log |\Psi_0| - \tfrac{\nu_N}{2} \log |\Psi_N| + \tfrac{d}{2} \log \frac{\kappa_0}{\kappa_N}
    """
    count, width = x.shape
    strength, freedom = prior.strength + count, prior.freedom + count
    mean = x.mean(0)
    centred = x - mean
    away = mean - prior.mean
    scatter = prior.scatter + centred.T @ centred + prior.strength * count / strength * torch.outer(away, away)
    gammas = multigammaln(torch.tensor([freedom / 2, prior.freedom / 2], dtype=torch.float64), width)
    return float(
        -0.5 * count * width * math.log(math.pi)
        + gammas[0]
        - gammas[1]
        + 0.5 * prior.freedom * torch.linalg.slogdet(prior.scatter)[1]
        - 0.5 * freedom * torch.linalg.slogdet(scatter)[1]
        + 0.5 * width * math.log(prior.strength / strength)
    )


@register("discoverers", "semi-supervised-gmm", paper="gpc")
class SemiSupervisedGMM(Discoverer):
    r"""A Gaussian mixture that splits and merges components until their number fits; labelled rows stay in theirs.

    Zhao, Wen and Han, *Learning Semi-supervised Gaussian Mixture Models for Generalized Category Discovery* (2023): the
    mixture of their E-step, on frozen features of unit length at a few principal components.
    Expectation-maximisation, in which rows with a label belong to the component of their class, takes turns with two
    moves. Components are split in two by 2-means, with probability min(1, H), where the Hastings ratio

    .. math:: H = \frac{\alpha\, \Gamma(N_1) p(X_1)\, \Gamma(N_2) p(X_2)}{\Gamma(N) p(X)}

    compares the marginal likelihoods under a normal-inverse-Wishart prior; and the nearest pairs of components are
    merged with probability min(1, 1 / H). The prior's scatter is that of the labelled classes about their means.

    The labelled rows of a class are never divided: a split takes unlabelled rows from it. Two components with labels
    are never merged. The chain is run from several numbers of components, and the result with the largest marginal
    probability of rows and partition counts.

    Their M-step, which trains the network by contrast with the prototypes, is left out.

    Args:
        classes: the number of classes, known and new, or "auto" (default). A given number is kept: nothing is split or
            merged.
        split_merge: whether components are split and merged where the number is "auto"; otherwise it is the number of
            `starting`.
        starting: numbers of components that the chains start from, in units of the known classes; 1 or more each.
        components: principal components of the features, at most; 16 by default. Covariances of many dimensions need
            more rows than there are.
        prior: how many rows the scatter of the labelled classes counts for, more than 1. With 100 (default) components
            of fewer rows look much like a known class; fewer let them take any shape, and there are more of them.
        concentration: alpha, positive; how readily there is one more component.
        rounds: of splits and merges, at most; 1 or more.
        iterations: of expectation-maximisation in each round; 1 or more.

    Attributes:
        labels_, n_classes_, n_classes_interval_, outlier_scores_, probabilities_: see
            :class:`repertoire.discover.Discoverer`. The interval is that of the numbers in which the chains ended, and
            the outlier score the negative log density of a row.
        log_posterior_: of the last round, after each iteration; it never falls.

    Example:
        >>> import torch
        >>> from repertoire.discover import SemiSupervisedGMM
        >>> truth = torch.arange(5).repeat_interleave(40)
        >>> x = 6 * torch.eye(5)[truth] + torch.randn(200, 5, generator=torch.Generator().manual_seed(0))
        >>> SemiSupervisedGMM().fit(x, torch.where(truth < 3, truth, -1)).n_classes_
        5
    """

    split_merge: bool = True
    starting: tuple[float, ...] = (1.0, 2.0, 4.0)
    components: Annotated[int, AtLeast(1)] = 16
    prior: Annotated[float, Between(1, math.inf, "()")] = 100.0
    concentration: Annotated[float, Positive] = 1.0
    rounds: Annotated[int, AtLeast(1)] = 10
    iterations: Annotated[int, AtLeast(1)] = 20

    def _discover(self, x: Tensor, labels: Tensor, known: int, generator: torch.Generator) -> Found:
        rows = reduced(reduced(x, 128, unit=True), self.components).double()
        prior = _prior(rows, labels, known, self.prior)
        most = known + int((labels < 0).sum())
        if self.classes != "auto":
            starts, moving = [self.classes], False
        else:
            # At least one that is new: a split needs somewhere to go, and a merge something to take.
            starts = sorted({min(most, max(known, round(factor * known))) for factor in self.starting})
            moving = self.split_merge
        chains = [self._chain(rows, labels, known, start, moving, prior, generator) for start in starts]
        best = max(range(len(chains)), key=lambda i: chains[i][1])
        mixture = chains[best][0]
        responsibility, _ = expected(rows, torch.full_like(labels, -1), mixture)
        log_p = _log_density(rows, mixture)
        counts = [len(mixture.weights) for mixture, _ in chains]
        interval = None if self.classes != "auto" else (min(counts), max(counts))
        return Found(responsibility.argmax(1), -log_p, len(mixture.weights), interval, responsibility)

    def _chain(
        self,
        x: Tensor,
        labels: Tensor,
        known: int,
        start: int,
        moving: bool,
        prior: Prior,
        generator: torch.Generator,
    ) -> tuple[Mixture, float]:
        """The mixture in which a chain ends, and the log probability of rows and partition."""
        groups = pinned_kmeans(x.float(), start, labels, generator=generator).assignment
        mixture = self._fitted(x, labels, groups, prior)
        for _ in range(self.rounds if moving else 0):
            before = groups
            groups = _assigned(x, labels, mixture)
            groups = self._split(x, labels, known, groups, prior, generator)
            mixture = self._fitted(x, labels, groups, prior)
            groups = _assigned(x, labels, mixture)
            groups = self._merged(x, known, groups, prior, generator)
            mixture = self._fitted(x, labels, groups, prior)
            if torch.equal(groups, before):
                break
        groups = _assigned(x, labels, mixture)
        sizes = torch.bincount(groups)
        if moving and len(sizes) < len(mixture.weights):  # components that no row is in
            mixture = maximised(x, torch.nn.functional.one_hot(groups).to(x.dtype), prior)
        value = sum(
            math.log(self.concentration) + math.lgamma(int(size)) + log_marginal(x[groups == k], prior)
            for k, size in enumerate(sizes.tolist())
            if size
        )
        return mixture, value

    def _fitted(self, x: Tensor, labels: Tensor, groups: Tensor, prior: Prior) -> Mixture:
        """Expectation-maximisation from a partition."""
        responsibility = torch.nn.functional.one_hot(groups).to(x.dtype)
        mixture = maximised(x, responsibility, prior)
        self.log_posterior_ = []
        for _ in range(self.iterations):
            responsibility, likelihood = expected(x, labels, mixture)
            self.log_posterior_.append(likelihood + log_prior(mixture, prior))
            if len(self.log_posterior_) > 1 and self.log_posterior_[-1] - self.log_posterior_[-2] < 1e-6 * len(x):
                break
            mixture = maximised(x, responsibility, prior)
        return mixture

    def _split(
        self, x: Tensor, labels: Tensor, known: int, groups: Tensor, prior: Prior, generator: torch.Generator
    ) -> Tensor:
        groups = groups.clone()
        count = int(groups.max()) + 1
        for k in range(count):
            members = (groups == k).nonzero().flatten()
            pinned = torch.where(labels[members] >= 0, 0, -1)
            if len(members) < 4 or int((pinned < 0).sum()) < 2:
                continue
            halves = pinned_kmeans(x[members].float(), 2, pinned, starts=3, generator=generator).assignment
            first, second = x[members[halves == 0]], x[members[halves == 1]]
            if not len(first) or not len(second):
                continue
            if self._accepted(self._log_ratio(first, second, prior), generator):
                groups[members[halves == 1]] = int(groups.max()) + 1
        return groups

    def _merged(self, x: Tensor, known: int, groups: Tensor, prior: Prior, generator: torch.Generator) -> Tensor:
        groups = groups.clone()
        sizes = torch.bincount(groups, minlength=known)
        means = torch.zeros(len(sizes), x.shape[1], dtype=x.dtype).index_add_(0, groups, x)
        means = means / sizes.clamp_min(1)[:, None]
        distances = torch.cdist(means, means)
        distances[:known, :known] = torch.inf
        distances.fill_diagonal_(torch.inf)
        distances[sizes == 0], distances[:, sizes == 0] = torch.inf, torch.inf
        taken: set[int] = set()
        for pair in distances.flatten().argsort().tolist():
            i, j = sorted(divmod(pair, len(sizes)))
            if not math.isfinite(float(distances[i, j])):
                break
            if i in taken or j in taken:
                continue
            # Each component is looked at with its nearest one that is free.
            taken |= {i, j}
            ratio = self._log_ratio(x[groups == i], x[groups == j], prior)
            if self._accepted(-ratio, generator):
                groups[groups == j] = i
        # Without gaps, known classes as they are.
        present = torch.bincount(groups, minlength=known) > 0
        present[:known] = True
        return (present.cumsum(0) - 1)[groups]

    def _log_ratio(self, first: Tensor, second: Tensor, prior: Prior) -> float:
        """log H of two parts against their union."""
        apart = sum(math.lgamma(len(part)) + log_marginal(part, prior) for part in (first, second))
        whole = torch.cat([first, second])
        return math.log(self.concentration) + apart - math.lgamma(len(whole)) - log_marginal(whole, prior)

    @staticmethod
    def _accepted(log_ratio: float, generator: torch.Generator) -> bool:
        return math.log(max(float(torch.rand((), generator=generator)), 1e-300)) < log_ratio


def _assigned(x: Tensor, labels: Tensor, mixture: Mixture) -> Tensor:
    """The component of each row, without gaps; those of known classes are never empty."""
    groups = expected(x, labels, mixture)[0].argmax(1)
    known = int(labels.max()) + 1
    present = torch.bincount(groups, minlength=known) > 0
    present[:known] = True
    return (present.cumsum(0) - 1)[groups]


def _prior(x: Tensor, labels: Tensor, known: int, count: float) -> Prior:
    """A prior whose scatter is that of the rows of the labelled classes about their means, as if of so many rows."""
    seen = labels >= 0
    means = torch.zeros(known, x.shape[1], dtype=x.dtype).index_add_(0, labels[seen], x[seen])
    means = means / torch.bincount(labels[seen], minlength=known)[:, None]
    centred = x[seen] - means[labels[seen]]
    width = x.shape[1]
    inside = centred.T @ centred / len(centred)
    # Few labels say little about directions: half of it is the same in all of them.
    level = max(float(inside.diagonal().mean()), 1e-3 * float(x.var(0).mean())) or 1.0  # of rows that are all alike
    inside = 0.5 * inside + 0.5 * level * torch.eye(width, dtype=x.dtype)
    freedom = width + count
    # The mean of an inverse Wishart is its scatter divided by the freedom less d + 1.
    return Prior(x.mean(0), 0.1, inside * (freedom - width - 1), freedom)


def _log_density(x: Tensor, mixture: Mixture) -> Tensor:
    factors = torch.linalg.cholesky(mixture.covariances)
    white = torch.linalg.solve_triangular(factors, (x.T - mixture.means[:, :, None]), upper=False)
    half = factors.diagonal(dim1=1, dim2=2).log().sum(1)
    log_p = -0.5 * white.square().sum(1) - half[:, None] - 0.5 * x.shape[1] * math.log(2 * math.pi)
    return (log_p + mixture.weights.clamp_min(1e-300).log()[:, None]).logsumexp(0)

"""Novelty scores against loops that are written from the papers, and from what pytorch-ood computes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import weibull_min

from repertoire.errors import CheckpointError, ConfigError, RepertoireWarning, ShapeError
from repertoire.openset import (
    COSTARR,
    Energy,
    Mahalanobis,
    MaxLogit,
    MaxSoftmax,
    MonteCarloDropout,
    NearestNeighbours,
    OpenMax,
    VirtualLogit,
)


def samples(seed: int, count: int = 90, classes: int = 3, width: int = 6):
    """Features around class means, the weight and bias of a last layer, logits and labels."""
    generator = np.random.default_rng(seed)
    weight, bias = generator.normal(size=(classes, width)), generator.normal(size=classes)
    y = np.arange(count) % classes
    x = 1.5 * weight[y] + generator.normal(size=(count, width))
    return x, x @ weight.T + bias, y, weight, bias


X, F, LABELS, WEIGHT, BIAS = samples(0)
NEW = np.random.default_rng(1).normal(size=(20, 6)) * 3
NEW_F = NEW @ WEIGHT.T + BIAS


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_scores_of_logits(temperature):
    for score, formula in (
        (MaxSoftmax(temperature), lambda f: math.log(max(softmax(f, temperature)))),
        (Energy(temperature), lambda f: temperature * math.log(sum(math.exp(v / temperature) for v in f))),
        (MaxLogit(), max),
    ):
        found = score.fit(logits=F)(logits=NEW_F)
        np.testing.assert_allclose(found, [formula(row) for row in NEW_F.tolist()], rtol=1e-10, atol=1e-12)


def softmax(row: list[float], temperature: float) -> list[float]:
    powers = [math.exp(value / temperature) for value in row]
    return [power / sum(powers) for power in powers]


def test_large_logits_do_not_overflow_or_tie():
    f = np.array([[1000.0, 900.0], [1000.0, 999.0], [2000.0, 1000.0]])
    found = MaxSoftmax().fit(logits=f)(logits=f)
    np.testing.assert_allclose(found, [0, -math.log1p(math.exp(-1)), 0], atol=1e-12)
    assert MaxSoftmax(30.0).fit(logits=f)(logits=f)[2] > MaxSoftmax(30.0).fit(logits=f)(logits=f)[0]


def test_mahalanobis_is_that_of_pytorch_ood_but_for_a_factor():
    """There, the covariance is the sum over samples and the distance is halved: N / 2 times less."""
    means = {c: sum(X[c == LABELS]) / (c == LABELS).sum() for c in range(3)}
    summed = sum(np.outer(row - means[c], row - means[c]) for row, c in zip(X, LABELS.tolist(), strict=True))
    inverse = np.linalg.inv(summed)
    theirs = [min(0.5 * (row - mean) @ inverse @ (row - mean) for mean in means.values()) for row in NEW]
    found = Mahalanobis(shrinkage=0.0).fit(X, labels=LABELS)(NEW)
    np.testing.assert_allclose(found, -2 * len(X) * np.array(theirs), rtol=1e-8)


def test_mahalanobis_shrinks_by_ledoit_and_wolf():
    from sklearn.covariance import LedoitWolf

    means = np.stack([X[c == LABELS].mean(0) for c in range(3)])
    fitted = LedoitWolf(assume_centered=True).fit(X - means[LABELS])
    expected = [-min((row - mean) @ fitted.precision_ @ (row - mean) for mean in means) for row in NEW]
    np.testing.assert_allclose(Mahalanobis().fit(X, labels=LABELS)(NEW), expected, rtol=1e-8)
    everywhere = Mahalanobis(shrinkage=1.0).fit(X, labels=LABELS)(NEW)
    size = np.trace((X - means[LABELS]).T @ (X - means[LABELS])) / len(X) / 6
    np.testing.assert_allclose(everywhere, [-min(((row - mean) ** 2).sum() for mean in means) / size for row in NEW])


def test_mahalanobis_of_fewer_samples_than_features():
    """Without shrinkage, what no sample varies in is not looked at; with it, everything is."""
    x, away = np.zeros((6, 8)), np.zeros((1, 8))
    x[:, 0], away[0, 7] = np.arange(6), 5.0
    away[0, 0] = 2.5
    assert Mahalanobis(shrinkage=0.0).fit(x, labels=np.zeros(6, int))(away)[0] == pytest.approx(0.0)
    assert Mahalanobis(shrinkage=0.1).fit(x, labels=np.zeros(6, int))(away)[0] < -100
    with pytest.raises(ConfigError, match="no two samples of a class differ"):
        Mahalanobis().fit(X[:3], labels=np.arange(3))


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("neighbours", [1, 4, 1000])
def test_knn_is_the_distance_to_the_kth_neighbour(normalize, neighbours):
    def scaled(row):
        return row / np.linalg.norm(row) if normalize else row

    expected = [
        -sorted(np.linalg.norm(scaled(row) - scaled(known)) for known in X)[min(neighbours, len(X)) - 1] for row in NEW
    ]
    found = NearestNeighbours(neighbours, normalize).fit(X)(NEW)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_knn_in_blocks_and_of_zero_vectors():
    many = np.random.default_rng(0).normal(size=(1500, 3))
    many[1200] = 0
    score = NearestNeighbours(neighbours=2).fit(X[:, :3])
    np.testing.assert_allclose(score(many)[1100:1300], score(many[1100:1300]), rtol=1e-9)
    assert score(many)[1200] == pytest.approx(-1.0)


def test_knn_holds_no_more_distances_for_a_large_training_set(monkeypatch):
    rng = np.random.default_rng(0)
    score = NearestNeighbours(neighbours=2).fit(rng.normal(size=(3000, 3)))
    asked = rng.normal(size=(50, 3))
    whole, seen, partition = score(asked), [], np.partition

    def watched(values, *args, **kwargs):
        seen.append(values.size)
        return partition(values, *args, **kwargs)

    monkeypatch.setattr("repertoire.openset._neighbours._PAIRS", 20_000)
    monkeypatch.setattr(np, "partition", watched)
    np.testing.assert_allclose(score(asked), whole, rtol=1e-9)
    assert max(seen) <= 20_000
    assert len(seen) == 9


def openmax_of_pytorch_ood(f, y, new, tail, alpha):
    """Its steps one by one, with distances to every class; SciPy fits the tails. Gives the probability of unknown."""
    classes = f.shape[1]
    alpha = min(alpha, classes)
    fits = {}
    for c in range(classes):
        own = [row for row, label in zip(f, y, strict=True) if label == c and row.argmax() == c]
        mean = sum(own) / len(own)
        distances = sorted(np.linalg.norm(row - mean) for row in own)[-tail:]
        shape, _, scale = weibull_min.fit([d + 10000 - distances[0] for d in distances], floc=0)
        fits[c] = mean, distances[0], shape, scale
    unknown = []
    for row in new:
        revised, passed = list(row), 0.0
        for rank, c in enumerate(np.argsort(row)[::-1][:alpha].tolist(), 1):
            mean, lowest, shape, scale = fits[c]
            inside = weibull_min.cdf(np.linalg.norm(row - mean) + 10000 - lowest, shape, loc=0, scale=scale)
            w = inside * (alpha + 1 - rank) / alpha
            revised[c] = row[c] * (1 - w)
            passed += row[c] * w
        powers = [math.exp(value) for value in (passed, *revised)]
        unknown.append(powers[0] / sum(powers))
    return np.array(unknown)


@pytest.mark.parametrize(("tail", "revised"), [(8, 2), (20, 10)])
def test_openmax_is_the_probability_of_unknown(tail, revised):
    expected = openmax_of_pytorch_ood(F, LABELS, NEW_F, tail, revised)
    found = OpenMax(tail, revised).fit(logits=F, labels=LABELS)(logits=NEW_F)
    # SciPy's search for the most likely shape stops early.
    np.testing.assert_allclose(1 / (1 + np.exp(found)), expected, rtol=0.02, atol=1e-4)


def test_openmax_finds_the_most_likely_tail():
    from repertoire.openset._openmax import _weibull

    values = 10000 + np.sort(np.random.default_rng(0).gamma(2.0, size=25))
    shape, scale = _weibull(values)

    def likelihood(c, s):
        z = np.log(values / s)
        return (np.log(c / s) + (c - 1) * z - np.exp(c * z)).sum()

    best = likelihood(shape, scale)
    for factor in (0.99, 1.01):
        assert likelihood(shape * factor, scale) < best
    for shift in (-0.05, 0.05):
        assert likelihood(shape, scale + shift) < best


def test_openmax_of_small_classes_goes_by_distance():
    """Class 0 has a tail; class 1 has two correct samples, class 2 one that is taken for 0, and class 3 none at all."""
    f = np.zeros((9, 4))
    f[:6, 0] = np.arange(4.0, 10.0)
    f[6:8, 1], f[8, 0], f[8, 2] = (3.0, 4.0), 2.0, 1.0
    labels = np.array([0] * 6 + [1, 1, 2])
    with pytest.warns(RepertoireWarning, match="2 of 4 classes have fewer than 5"):
        score = OpenMax(revised=1).fit(logits=f, labels=labels)
    assert score.few_.tolist() == [1, 2]
    assert score.radius_ == pytest.approx(2.5)  # the farthest of class 0 from its mean, 6.5
    new = np.array([[0, 3.5, 0, 0], [0, 7.25, 0, 0], [0, 9.0, 0, 0], [2.0, 0, 4.75, 0], [0, 0, 0, 5.0]])
    beyond = [0.0, 0.5, 1.0, 0.5, 1.0]  # 0, 3.75 and 5.5 from class 1, 3.75 from class 2, and class 3 has no place
    expected = []
    for row, share in zip(new, beyond, strict=True):
        best = int(row.argmax())
        revised = [v * (1 - share) if c == best else v for c, v in enumerate(row.tolist())]
        expected.append(math.log(sum(math.exp(v) for v in revised)) - row.max() * share)
    np.testing.assert_allclose(score(logits=new), expected, rtol=1e-12)


def test_openmax_needs_samples_that_differ():
    with pytest.raises(ConfigError, match="two samples that are classified correctly and differ"):
        OpenMax().fit(logits=np.eye(3), labels=np.arange(3))


@pytest.mark.parametrize("dimensions", [2, 4])
def test_vim_is_that_of_pytorch_ood(dimensions):
    origin = -np.linalg.pinv(WEIGHT) @ BIAS
    second = sum(np.outer(row - origin, row - origin) for row in X) / len(X)
    values, vectors = np.linalg.eig(second)
    least = vectors.T[np.argsort(-values)[dimensions:]].T
    alpha = F.max(1).mean() / np.mean([np.linalg.norm((row - origin) @ least) for row in X])
    expected = [
        math.log(sum(math.exp(v) for v in f)) - alpha * np.linalg.norm((row - origin) @ least)
        for row, f in zip(NEW, NEW_F.tolist(), strict=True)
    ]
    np.testing.assert_allclose(VirtualLogit(WEIGHT, BIAS, dimensions).fit(X, F)(NEW, NEW_F), expected, rtol=1e-8)


def test_vim_says_what_it_cannot_do():
    with pytest.raises(ConfigError, match="less than the 6 features"):
        VirtualLogit(WEIGHT, BIAS, 6).fit(X, F)
    flat = X * (np.arange(6) < 2)
    with pytest.raises(ConfigError, match="in no more than 3 directions"):
        VirtualLogit(WEIGHT, dimensions=3).fit(flat, F)
    with pytest.raises(ConfigError, match="same logits"):
        VirtualLogit(WEIGHT, BIAS).fit(X, np.full_like(F, -1.0))
    with pytest.raises(ShapeError, match="as wide as weight"):
        VirtualLogit(WEIGHT[:, :4], BIAS).fit(X, F)
    with pytest.raises(ShapeError, match=r"bias must be a finite floating point \[3\]"):
        VirtualLogit(WEIGHT, BIAS[:2])


def test_vim_of_negative_logits_goes_by_their_height_above_the_mean():
    """As many numbers as for positive ones, and the same for every constant that is added to all logits."""
    low = VirtualLogit(WEIGHT, BIAS, 4).fit(X, F - 100)
    lower = VirtualLogit(WEIGHT, BIAS, 4).fit(X, F - 1000)
    assert low.alpha_ == pytest.approx(lower.alpha_)
    usual = np.mean(np.linalg.norm((X - low.origin_) @ low.residual_, axis=1))
    assert low.alpha_ == pytest.approx(np.mean([max(f) - sum(f) / 3 for f in F.tolist()]) / usual)
    np.testing.assert_allclose(low(NEW, NEW_F - 100) + 100, lower(NEW, NEW_F - 1000) + 1000, rtol=1e-6)


@pytest.mark.parametrize("by", ["entropy", "information"])
def test_mc_dropout_pass_by_pass(by):
    masks = np.random.default_rng(3)
    kept = [masks.random(6) >= 0.3 for _ in range(7)]
    expected = []
    for row in NEW:
        answers = [softmax((WEIGHT @ (row * mask / 0.7) + BIAS).tolist(), 1.0) for mask in kept]
        mean = [sum(p[c] for p in answers) / 7 for c in range(3)]

        def entropy(p):
            return -sum(v * math.log(v) for v in p if v > 0)

        whole = entropy(mean)
        expected.append(-whole if by == "entropy" else sum(map(entropy, answers)) / 7 - whole)
    score = MonteCarloDropout(WEIGHT, BIAS, rate=0.3, passes=7, by=by, seed=3).fit(X)
    np.testing.assert_allclose(score(NEW), expected, rtol=1e-9, atol=1e-12)
    assert (score(NEW) <= 1e-12).all()


def test_mc_dropout_of_almost_no_dropout_is_the_entropy_of_the_answer():
    score = MonteCarloDropout(WEIGHT, BIAS, rate=1e-12, passes=1).fit(X)
    expected = [sum(p * math.log(p) for p in softmax(f, 1.0) if p > 0) for f in NEW_F.tolist()]
    np.testing.assert_allclose(score(NEW), expected, rtol=1e-9, atol=1e-12)
    with pytest.raises(ShapeError, match="as wide as weight"):
        MonteCarloDropout(WEIGHT[:, :4]).fit(X)(NEW)


def costarr_by_hand(parts, combine):
    """As an implementation that was compared with the authors' has it."""
    right = F.argmax(1) == LABELS
    low, high = F[right].min(), F[right].max()
    scores = []
    for row, f in zip(NEW, NEW_F, strict=True):
        c = int(f.argmax())

        def look(z, w=WEIGHT[c]):
            halves = {"features": z, "products": z * w, "both": np.concatenate([z, z * w])}
            return halves[parts]

        g, mean = look(row), np.mean([look(z) for z in X[right & (c == LABELS)]], axis=0)
        likeness = 0.5 * (1 + g @ mean / (np.linalg.norm(g) * np.linalg.norm(mean)))
        logit = min(max((f.max() - low) / (high - low), 0.0), 1.0)
        scores.append(likeness * logit if combine == "product" else likeness + logit)
    return scores


@pytest.mark.parametrize("parts", ["both", "features", "products"])
@pytest.mark.parametrize("combine", ["product", "sum"])
def test_costarr_by_hand(parts, combine):
    score = COSTARR(WEIGHT, BIAS, parts, combine).fit(X, F, LABELS)
    np.testing.assert_allclose(score(NEW, NEW_F), costarr_by_hand(parts, combine), rtol=1e-9)


def test_costarr_cuts_logits_off_at_those_of_training():
    """Below the smallest logit nothing is known, and above the largest one only likeness counts."""
    x = np.stack([X[0], -X[0], X[0], -X[0]])
    f = np.array([[-900.0, -999, -999]] * 2 + [[900.0, 0, 0]] * 2)
    found = COSTARR(WEIGHT).fit(X, F, LABELS)(x, f)
    assert found[0] == found[1] == 0
    assert found[2] + found[3] == pytest.approx(1.0)  # opposite cosines, halved and lifted
    assert found[2] > found[3]


def test_costarr_with_weights_of_one_is_cosine_times_logit():
    """Both halves are then the same, and likeness that of the features."""
    ones = np.ones_like(WEIGHT)
    both, half = (COSTARR(ones, parts=parts).fit(X, F, LABELS)(NEW, NEW_F) for parts in ("both", "features"))
    np.testing.assert_allclose(both, half, rtol=1e-12)


def test_costarr_with_halves_that_count_alike():
    """As they are, small weights leave the second half without a say; brought to one length, both have one."""
    small = 1e-4 * WEIGHT
    literal, features, alike, large = (
        COSTARR(weight, **options).fit(X, F, LABELS)(NEW, NEW_F)
        for weight, options in (
            (small, {}),
            (small, {"parts": "features"}),
            (small, {"alike": True}),
            (WEIGHT, {"alike": True}),
        )
    )
    np.testing.assert_allclose(literal, features, rtol=1e-4)
    np.testing.assert_allclose(alike, large, rtol=1e-9)
    assert np.abs(alike - features).max() > 0.01


def test_costarr_of_few_correct_samples_takes_all_of_the_class():
    wrong = F.copy()
    wrong[np.flatnonzero(LABELS == 2)[4:], 2] = -50.0
    score = COSTARR(WEIGHT).fit(X, wrong, LABELS)
    np.testing.assert_allclose(score.means_[2, :6], X[LABELS == 2].mean(0))
    without = COSTARR(WEIGHT).fit(X[LABELS < 2], F[LABELS < 2], LABELS[LABELS < 2])
    assert without(np.ones((1, 6)), np.array([[0.0, 0.0, 99.0]]))[0] == 0.5
    with pytest.raises(ConfigError, match="all logits are the same"):
        COSTARR(WEIGHT).fit(X, np.ones_like(F), LABELS)


def test_a_state_of_something_else_is_refused():
    with pytest.raises(CheckpointError, match="no state of a novelty score"):
        Energy().restore({"a": np.zeros(2)})


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: Energy(0.0), "temperature must be positive"),
        (lambda: NearestNeighbours(0), "neighbours must be positive"),
        (lambda: OpenMax(tail=1), "tail must be 2 or more"),
        (lambda: Mahalanobis(1.5), "shrinkage must lie in"),
        (lambda: COSTARR(WEIGHT, parts="half"), "parts must be"),
    ],
)
def test_options_out_of_range(build, said):
    with pytest.raises(ValueError, match=said):
        build()

from __future__ import annotations

import numpy as np
import pytest

from repertoire.errors import ConfigError, ShapeError
from repertoire.metrics import auroc
from repertoire.openset import DeepSAD, DeepSVDD

GENERATOR = np.random.default_rng(0)
NORMAL = GENERATOR.normal(size=(200, 5)) * [3, 1, 1, 0.2, 0.2]
ODD = GENERATOR.normal(size=(40, 5)) * [3, 1, 1, 0.2, 0.2] + [0, 0, 2.5, 0, 0]


def test_score_is_the_squared_distance_to_the_centre():
    score = DeepSVDD(width=4, size=3, epochs=1).fit(NORMAL)
    z = (ODD[7] - NORMAL.mean(0)) / NORMAL.std(0)
    hidden = [sum(w * v for w, v in zip(row, z, strict=True)) for row in score.first_]
    hidden = [value if value > 0 else 0.1 * value for value in hidden]
    found = [sum(w * v for w, v in zip(row, hidden, strict=True)) for row in score.second_]
    expected = -sum((value - c) ** 2 for value, c in zip(found, score.centre_, strict=True))
    assert score(ODD)[7] == pytest.approx(expected)


def test_training_draws_together_and_the_centre_stays_off_zero():
    """Without a bias, nothing but weights of zero would collapse, and the centre is where these do not lead."""
    short, long = (DeepSVDD(epochs=epochs).fit(NORMAL) for epochs in (1, 30))
    np.testing.assert_array_equal(short.centre_, long.centre_)
    assert np.abs(long.centre_).min() >= 0.1 - 1e-6
    assert long(NORMAL).mean() > 0.7 * short(NORMAL).mean()
    assert long(NORMAL).std() > 0, "it has not collapsed"
    zero = -(long.centre_**2).sum()
    assert long(NORMAL).mean() > zero, "better than weights of zero"


def test_known_anomalies_help_to_find_others_like_them():
    both, truth = np.concatenate([NORMAL, ODD[10:]]), np.arange(230) < 200
    without = auroc(DeepSVDD(epochs=20).fit(NORMAL)(both), truth)
    told = auroc(DeepSAD(epochs=20).fit(NORMAL, anomalies=ODD[:10])(both), truth)
    assert told > without + 0.05
    assert told > 0.8


def test_without_anomalies_it_points_to_the_other():
    for given in (None, ODD[:0]):
        with pytest.raises(ConfigError, match="use DeepSVDD"):
            DeepSAD().fit(NORMAL, anomalies=given)
    with pytest.raises(ShapeError, match=r"anomalies must be \[M, 5\]"):
        DeepSAD().fit(NORMAL, anomalies=ODD[:, :3])


def test_a_feature_that_never_varies_changes_nothing_much():
    x = np.hstack([NORMAL, np.ones((200, 1))])
    assert np.isfinite(DeepSVDD(epochs=2).fit(x)(x)).all()

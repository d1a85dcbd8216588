"""Between seen and unseen classes: calibrated stacking, the area under its curve, gates."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import combined

from repertoire.errors import ShapeError
from repertoire.zeroshot import COSMO, ESZSL, ausuc, calibrated_stacking, choose_gamma, held_out, seen_unseen


def by_grid(scores, labels, seen, per_class, values):
    """Both accuracies at each gamma of a grid, by predicting anew."""
    points = []
    for gamma in values:
        right = (scores - gamma * seen).argmax(1) == labels
        both = []
        for group in (True, False):
            mine = seen[labels] == group
            if per_class:
                both.append(np.mean([right[labels == c].mean() for c in np.unique(labels[mine])]))
            else:
                both.append(right[mine].mean())
        points.append(both)
    return np.array(points)


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 30), st.integers(1, 3), st.integers(1, 3), st.booleans(), st.booleans(), st.integers(0, 999))
def test_the_area_is_that_of_a_fine_grid(count, known, new, per_class, ties, seed):
    generator = np.random.default_rng(seed)
    scores = generator.normal(size=(count, known + new))
    if ties:
        scores = (4 * scores).round() / 4  # whose differences are exact
    seen = np.arange(known + new) < known
    labels = np.concatenate([[0, known], generator.integers(0, known + new, count - 2)])
    curve = seen_unseen(scores, labels, seen, per_class=per_class)
    # A grid that has a value strictly between each two break points, and beyond them.
    between = np.concatenate(
        [[curve.breaks[0] - 1], (curve.breaks[1:] + curve.breaks[:-1]) / 2, [curve.breaks[-1] + 1]]
    )
    found = by_grid(scores, labels, seen, per_class, between)
    np.testing.assert_allclose(np.stack([curve.seen, curve.unseen], 1), found, atol=1e-12)
    area = sum((u1 - u0) * (s0 + s1) / 2 for (s0, u0), (s1, u1) in itertools.pairwise(found))
    assert ausuc(scores, labels, seen, per_class=per_class) == pytest.approx(area)
    assert curve.at(float(between[0]))[:2] == pytest.approx(tuple(found[0]))


def test_stacking_takes_gamma_from_seen_classes_alone():
    scores = np.array([[0.3, 0.2, 0.1]])
    assert [calibrated_stacking(scores, [True, False, True], g)[0] for g in (0.0, 0.05, 0.2, -9.0)] == [0, 0, 1, 0]
    with pytest.raises(ShapeError, match=r"seen must be bool \[3\]"):
        calibrated_stacking(scores, [0], 0.0)
    with pytest.raises(ShapeError, match="only one of both"):
        ausuc(scores, [0], [True, False, True])


def test_gamma_is_chosen_without_the_unseen_classes():
    x, y, descriptions, seen = combined(noise=0.5, sides=6, hidden=1.0)
    gamma = choose_gamma(ESZSL(), x[seen], y[seen], descriptions)
    changed = np.where(np.isin(np.arange(36), np.unique(y[seen]))[:, None], descriptions, np.nan)
    assert choose_gamma(ESZSL(), x[seen], y[seen], changed) == gamma
    model = ESZSL().fit(x[seen], y[seen], descriptions)
    curve = seen_unseen(model.decision_function(x), y, model.is_seen())
    assert curve.at(gamma)[2] > curve.at(0.0)[2]
    with pytest.raises(ShapeError, match="give rows of 6 or more"):
        choose_gamma(ESZSL(), x[:24], y[:24], descriptions)


def test_every_class_is_held_out_once_and_no_row_is_on_two_sides():
    y = np.repeat(np.arange(7), [1, 2, 5, 9, 20, 3, 4])
    away = []
    for part in held_out(y, 3, random_state=1):
        away += part.classes.tolist()
        rows = np.concatenate([part.fitted, part.seen, part.unseen])
        assert sorted(rows.tolist()) == list(range(len(y)))
        assert set(y[part.unseen]) == set(part.classes)
        assert set(y[part.fitted]) == set(range(7)) - set(part.classes)
    assert sorted(away) == list(range(7))


def test_cosmo_gives_probabilities_and_the_seen_expert_where_all_are_seen():
    x, y, descriptions, seen = combined(noise=0.8)
    model = COSMO(smooth=False).fit(x[seen], y[seen], descriptions)
    p = model.predict_proba(x)
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-9)
    known = descriptions[np.unique(y[seen])]
    alone = model.predict_proba(x, known)
    # With a gate that is sure of the seen classes, the whole is the seen expert.
    model.gate_ = np.append(np.zeros(6), 1e3)
    whole = model.predict_proba(x)
    np.testing.assert_allclose(whole[:, np.unique(y[seen])], alone, atol=1e-9)
    # Smoothed by a gate that has no idea, half the probability is uniform.
    smooth = COSMO().fit(x[seen], y[seen], descriptions)
    smooth.gate_ = np.zeros(7)
    np.testing.assert_allclose(
        smooth.predict_proba(x)[:, np.unique(y[seen])], 0.5 * (0.5 * alone + 0.5 / 12), atol=1e-9
    )
    hard = COSMO(gate="hard").fit(x[seen], y[seen], descriptions).predict_proba(x)
    assert ((hard > 1e-20).sum(1) < 16).all(), "a hard gate leaves one world out"


def test_cosmo_tells_both_worlds_better_than_its_expert():
    x, y, descriptions, seen = combined(noise=0.5, sides=6, hidden=1.0)
    harmonic = []
    for model in (COSMO(), ESZSL()):
        scores = model.fit(x[seen], y[seen], descriptions).decision_function(x)
        harmonic.append(seen_unseen(scores, y, model.is_seen()).at(0.0)[2])
    assert harmonic[0] > harmonic[1]

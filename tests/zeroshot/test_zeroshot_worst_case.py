"""The error that attributes alone cannot rule out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.errors import ConfigError, ShapeError
from repertoire.zeroshot import worst_case_error, worst_error_of


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 4), st.integers(1, 4), st.integers(0, 999))
def test_no_rule_does_better_and_the_rule_keeps_its_promise(classes, attributes, seed):
    """Strong duality: the adversary forces this error on every rule, and no adversary gets more out of this rule."""
    generator = np.random.default_rng(seed)
    A = generator.random((classes, attributes)).round(2)
    prior = generator.dirichlet(np.ones(classes))
    found = worst_case_error(A, prior)
    vectors = (np.arange(2**attributes)[:, None] >> np.arange(attributes)) & 1
    np.testing.assert_allclose(found.adversary.sum(1), 1, atol=1e-7)
    np.testing.assert_allclose(found.adversary @ vectors, A, atol=1e-6)
    forced = 1 - (prior[:, None] * found.adversary).max(0).sum()
    assert forced == pytest.approx(found.error, abs=1e-6)
    assert worst_error_of(found.rule, A, prior) == pytest.approx(found.error, abs=1e-6)


def test_classes_alike_are_guessed():
    same = np.tile([[1.0, 0.0, 0.3]], (4, 1))
    assert worst_case_error(same).error == pytest.approx(0.75)
    pair = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert worst_case_error(pair).error == pytest.approx(1 / 3)


def test_one_attribute_by_hand():
    """Attribute had by 0.9 of one class and 0.2 of the other: each side takes the larger mass."""
    assert worst_case_error([[0.9], [0.2]]).error == pytest.approx(1 - (0.9 + 0.8) / 2)
    assert worst_case_error([[0.9], [0.2]], [0.5, 0.5]).rule.argmax(1).tolist() == [1, 0]


def test_what_is_refused():
    with pytest.raises(ConfigError, match="13 attributes make 8192 vectors"):
        worst_case_error(np.zeros((2, 13)))
    with pytest.raises(ShapeError, match=r"in \[0, 1\]"):
        worst_case_error([[1.5]])
    with pytest.raises(ShapeError, match="prior must be a distribution"):
        worst_case_error([[0.5], [0.1]], [0.5, 0.6])
    with pytest.raises(ShapeError, match="rule must be distributions"):
        worst_error_of(np.ones((2, 2)), [[0.5], [0.1]])

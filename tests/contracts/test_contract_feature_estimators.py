"""What every registered estimator on features must do: what scikit-learn asks of its own, and more."""

from __future__ import annotations

from registered import each_check

from repertoire.testing import check_estimator


@each_check("feature-estimators", check_estimator)
def test_keeps_its_contract(check):
    check()

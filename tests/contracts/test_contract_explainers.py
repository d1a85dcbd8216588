"""What every registered explainer must do."""

from __future__ import annotations

from registered import each_check

from repertoire.testing import check_explainer


@each_check("explainers", check_explainer)
def test_keeps_its_contract(check):
    check()

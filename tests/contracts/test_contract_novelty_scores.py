"""What every registered novelty score must do."""

from __future__ import annotations

from registered import each_check

from repertoire.testing import check_novelty_score


@each_check("novelty-scores", check_novelty_score)
def test_keeps_its_contract(check):
    check()

"""Checks of a component against its contract, for components of one's own as well as for those of Repertoire.

A check is driven by what the component declares about itself, and needs no test framework::

    import pytest
    from repertoire.testing import check_loss

    @pytest.mark.parametrize("check", check_loss(MyLoss), ids=str)
    def test_my_loss(check):
        check()
"""

from repertoire.testing._check import Check
from repertoire.testing.heads import check_head
from repertoire.testing.losses import check_loss

__all__ = ["Check", "check_head", "check_loss"]

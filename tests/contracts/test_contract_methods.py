"""Every method: a scalar loss, detached logs, state in buffers that move once an update, needs that are true."""

from __future__ import annotations

import pytest
from registered import each_check

from repertoire.methods import Method
from repertoire.testing import check_method


@each_check("methods", check_method)
def test_keeps_its_contract(check):
    check()


def test_a_class_that_makes_a_step_of_its_own_has_to_declare_so():
    with pytest.raises(TypeError, match="declare needs"):
        type("Bent", (Method,), {"step": lambda self, batch: None})

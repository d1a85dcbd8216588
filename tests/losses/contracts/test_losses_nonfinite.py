from __future__ import annotations

import torch

from repertoire.losses import explain_nonfinite


def test_names_rows_and_what_is_wrong_with_them():
    x = torch.zeros(5, 3)
    x[1, 2], x[3, 0], x[4, 0], x[4, 1] = torch.nan, -torch.inf, torch.inf, torch.nan
    assert explain_nonfinite(x) == ("3 of 5 rows are not finite: 1 (not a number), 3 (infinite), 4 (not a number)")


def test_names_ten_rows_at_most():
    assert explain_nonfinite(torch.full((12, 2), torch.inf)).endswith("8 (infinite), 9 (infinite) and 2 more")


def test_finite_rows_and_images():
    x = torch.zeros(2, 3, 4, 4, dtype=torch.bfloat16)
    x[1, 2, 3, 3] = -128
    assert explain_nonfinite(x) == "all 2 rows are finite; the largest magnitude is 128, in row 1"


def test_nothing():
    assert explain_nonfinite(torch.zeros(0, 3)) == "there are no values"
    assert explain_nonfinite(torch.zeros(3, 0)) == "there are no values"

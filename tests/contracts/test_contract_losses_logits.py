"""Bad input to losses on logits, and what soft targets must mean where a loss takes them."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch
from test_contract_losses import BY_CONTRACT, BY_TARGETS, CLASSES, N, build, gradients, inputs

from repertoire import losses, registry
from repertoire.errors import ConfigError, ShapeError

#: Those that also take a distribution over classes for each sample.
SOFT = {"cross-entropy", "encouraging"}
#: Those in which a label that is surely wrong costs no more than so much, however high its logit.
BOUNDED = {"asymmetric"}
CLASS_INDICES = BY_TARGETS["classes"]


def logits(rows: int = 3, classes: int = CLASSES) -> torch.Tensor:
    return torch.randn(rows, classes, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", CLASS_INDICES)
@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (torch.tensor([0, 1, CLASSES]), rf"targets must lie in 0..{CLASSES - 1}.* found {CLASSES}"),
        (torch.tensor([0, -1, 1]), rf"targets must lie in 0..{CLASSES - 1}.* found -1"),
        (torch.tensor([0, 1]), r"targets must be \[3\].* found \[2\]"),
        (torch.zeros(3, 1, dtype=torch.int64), r"targets must be \[3\].* found \[3, 1\]"),
        (torch.zeros(3), r"targets must.*found"),
        (torch.zeros(3, dtype=torch.complex64), r"targets must be integers, found torch.complex64"),
    ],
    ids=["too many labels", "negative", "too few", "a column", "floats", "complex"],
)
def test_class_indices_that_do_not_fit_are_named(name, targets, message):
    with pytest.raises(ShapeError, match=message):
        build(name)(logits(), targets)


@pytest.mark.parametrize("name", sorted(set(CLASS_INDICES) - SOFT))
def test_soft_targets_are_refused_where_they_make_no_sense(name):
    with pytest.raises(ShapeError, match=r"targets must be int64 class indices \[N\] for this loss"):
        build(name)(logits(), torch.full((3, CLASSES), 1 / CLASSES))


@pytest.mark.parametrize("name", sorted(SOFT))
def test_soft_targets(name):
    loss, (scores, targets) = build(name, reduction="none"), inputs(build(name))
    hard = torch.eye(CLASSES, dtype=scores.dtype)[targets]
    torch.testing.assert_close(loss(scores, hard), loss(scores, targets))
    # The loss is linear in the targets: a mixture of them is a mixture of losses.
    other = hard.roll(1, 0)
    torch.testing.assert_close(
        loss(scores, 0.3 * hard + 0.7 * other), 0.3 * loss(scores, hard) + 0.7 * loss(scores, other)
    )
    half = loss(scores, hard.half())
    torch.testing.assert_close(half, loss(scores, hard))
    with pytest.raises(ShapeError, match=r"soft targets must have the logits' shape \[9, 4\], found \[9, 3\]"):
        loss(scores, hard[:, :3])


@pytest.mark.parametrize("name", BY_CONTRACT["logits"])
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.zeros(3), r"must be (floating point )?\[N, [CK]\]|must be floating point"),
        (torch.zeros(3, CLASSES, 2), r"must be (floating point )?\[N, [CK]\]|must be floating point"),
        (torch.zeros(3, CLASSES, dtype=torch.int64), "must be floating point"),
    ],
    ids=["a vector", "three dimensions", "integers"],
)
def test_logits_that_do_not_fit_are_named(name, bad, message):
    targets = torch.zeros(3, CLASSES) if name in BY_TARGETS["labels"] else torch.zeros(3, dtype=torch.int64)
    with pytest.raises(ShapeError, match=message):
        build(name)(bad, targets)


@pytest.mark.parametrize("name", BY_CONTRACT["logits"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_row_of_logits_that_is_not_finite_shows_and_can_be_named(name, bad):
    """In the row of a class that is wrong, so that no loss can be content with it."""
    arguments = inputs(build(name))
    scores = arguments[0].detach().clone()
    scores[5, 3] = bad
    assert arguments[1].ndim == 1 or not arguments[1][5, 3]
    if name in BOUNDED and math.isinf(bad):
        assert build(name)(scores, *arguments[1:]).isfinite()
        return
    each = build(name, reduction="none")(scores, *arguments[1:])
    assert each.isfinite().tolist() == [row != 5 for row in range(N)]
    assert not build(name)(scores, *arguments[1:]).isfinite()
    kind = "not a number" if math.isnan(bad) else "infinite"
    assert losses.explain_nonfinite(scores) == f"1 of {N} rows are not finite: 5 ({kind})"


@pytest.mark.parametrize("name", BY_TARGETS["numbers"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_numbers_that_are_not_finite_are_named(name, bad):
    targets = torch.zeros(6)
    targets[[1, 4]] = bad
    with pytest.raises(ShapeError, match=r"targets must be finite, found (nan|inf); not finite are rows 1, 4"):
        build(name)(logits(6), targets)


@pytest.mark.parametrize("name", BY_CONTRACT["logits"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_an_empty_batch_is_zero_in_every_reduction(name, reduction):
    arguments = inputs(build(name), rows=0)
    value = build(name, reduction=reduction)(*arguments)
    assert value.shape == ((0,) if reduction == "none" else ())
    assert not value.any()
    assert gradients(value.sum(), arguments)[0].shape == (0, CLASSES)


@pytest.mark.parametrize("name", BY_TARGETS["classes"])
@pytest.mark.parametrize("target", [0, 2])
def test_a_batch_of_one_class(name, target):
    loss = build(name)
    scores = inputs(loss)[0]
    value = loss(scores, torch.full((N,), target))
    assert value.isfinite()
    assert gradients(value, (scores,))[0].isfinite().all()


@pytest.mark.parametrize("name", BY_TARGETS["labels"])
@pytest.mark.parametrize("target", [0, 1])
def test_no_label_and_every_label(name, target):
    loss = build(name)
    scores = inputs(loss)[0]
    value = loss(scores, torch.full((N, CLASSES), target))
    assert value.isfinite()
    assert gradients(value, (scores,))[0].isfinite().all()


@pytest.mark.parametrize(
    "name", [n for n in BY_CONTRACT["logits"] if "temperature" in registry.options(registry.get("losses", n).factory)]
)
@pytest.mark.parametrize("value", ["0", "-0.1", "nan"])
def test_a_temperature_of_logits_is_positive(name, value):
    with pytest.raises(ConfigError, match="temperature must be positive"):
        build(name, temperature=value)


def test_each_has_a_row_that_says_when_to_choose_it():
    page = (Path(__file__).parents[2] / "docs" / "components" / "losses.md").read_text(encoding="utf-8")
    section = page.partition("## On logits")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| ([^|]*) \|", section, re.MULTILINE)
    assert sorted(name for cell in cells for name in re.findall(r"`([^`]+)`", cell)) == BY_CONTRACT["logits"]

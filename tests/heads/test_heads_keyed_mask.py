"""A linear head whose logits the nearest of a few keys masks."""

from __future__ import annotations

import math

import pytest
import torch

from repertoire.errors import ConfigError
from repertoire.heads import KeyedMask


def head_of(dimensions: int = 5, classes: int = 3, prompts: int = 4) -> KeyedMask:
    torch.manual_seed(0)
    head = KeyedMask(dimensions, classes, prompts).double()
    with torch.no_grad():
        head.mask.normal_()
        head.shift.normal_()
        head.usage.counts.copy_(torch.tensor([0.0, 5.0, 1.0, 2.0])[:prompts])
    return head


@pytest.mark.parametrize("seed", range(3))
def test_is_its_formula(seed: int):
    head = head_of().eval()
    z = torch.randn(7, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = head(z)
    for row, logits in zip(z.tolist(), found.tolist(), strict=True):
        distances = []
        for key, used in zip(head.keys.tolist(), head.usage.counts.tolist(), strict=True):
            inner = sum(a * b for a, b in zip(row, key, strict=True))
            cosine = inner / math.sqrt(sum(a * a for a in row)) / math.sqrt(sum(b * b for b in key))
            distances.append((used + 1) * (1 - cosine))
        p = min(range(4), key=distances.__getitem__)
        for c in range(3):
            shifted = [a + s for a, s in zip(row, head.shift[p].tolist(), strict=True)]
            plain = sum(w * a for w, a in zip(head.linear.weight[c].tolist(), shifted, strict=True))
            mask = 2 / (1 + math.exp(-float(head.mask[c, p].detach())))
            assert logits[c] == pytest.approx(mask * (plain + float(head.linear.bias[c].detach())))


def test_a_prompt_that_is_used_becomes_more_distant():
    torch.manual_seed(0)
    head = KeyedMask(4, 2, prompts=3)
    z = torch.randn(60, 4)
    used = []
    for row in z.split(1):
        used.append(int(head.nearest(row)))
        head(row)
        head.usage.after_update()
    assert head.usage.counts.tolist() == [used.count(p) for p in range(3)]
    assert head.usage.counts.min() >= 5
    head.eval()(z)
    head.usage.after_update()
    assert head.usage.counts.sum() == 60, "only training counts"


def test_new_classes_begin_with_the_mask_that_old_ones_began_with():
    head = head_of().float().eval()
    z = torch.randn(6, 5)
    before = head(z)
    head.grow(5)
    torch.testing.assert_close(head(z)[:, :3], before)
    assert head.mask.shape == (5, 4)
    assert (head.mask[3:] == -1).all()


def test_out_of_range():
    with pytest.raises(ConfigError, match="prompts"):
        KeyedMask(4, 2, prompts=0)

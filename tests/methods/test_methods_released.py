"""Pseudo-labels and mixing beside the code that others released: the same numbers from the same draws."""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from repertoire.data import Batch
from repertoire.methods import ClassThresholds, SelfThresholds, cutmix, mixup

C, N = 5, 40


def answers(seed: int, count: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(count, C, generator=generator)).softmax(1)


def test_flexmatch_masks_what_the_unified_library_masks():
    """USB keeps a counter of the last sure answers, -1 among them, and divides by its largest count."""
    ours, chosen = ClassThresholds(C, N, 0.7).train(), [-1] * N
    learnt = [0.0] * C
    for step in range(12):
        q = answers(step)
        index = torch.randperm(N, generator=torch.Generator().manual_seed(step))[: len(q)]
        most, said = q.max(1)
        bars = [0.7 * learnt[c] / (2.0 - learnt[c]) for c in range(C)]
        torch.testing.assert_close(ours.bars(), torch.tensor(bars), rtol=1e-6, atol=1e-6)
        assert ours(q, index).tolist() == [p >= bars[c] for p, c in zip(most.tolist(), said.tolist(), strict=True)]
        ours.after_update()
        for i, p, c in zip(index.tolist(), most.tolist(), said.tolist(), strict=True):
            if p >= 0.7:
                chosen[i] = c
        counts = Counter(chosen)
        if max(counts.values()) < N:
            learnt = [counts[c] / max(counts.values()) for c in range(C)]
    assert any(0 < value < 1 for value in learnt)


def test_freematch_thresholds_follow_as_in_the_unified_library():
    """USB begins at 1 and moves first; from the same beginning, and asked after the update, ours are the same."""
    ours = SelfThresholds(C, decay=0.9).train()
    ours.level.fill_(1.0)
    ours.marginal.fill_(1.0)
    level, marginal = 1.0, np.ones(C)
    for step in range(10):
        q = answers(step)
        ours(q, torch.arange(len(q)))
        ours.after_update()
        level = 0.9 * level + 0.1 * float(q.double().amax(1).mean())
        marginal = 0.9 * marginal + 0.1 * q.double().mean(0).numpy()
        expected = torch.from_numpy(marginal / marginal.max() * level).float()
        torch.testing.assert_close(ours.bars(), expected, rtol=1e-6, atol=1e-6)


@pytest.fixture(scope="module")
def timm() -> ModuleType:
    """timm's module of mixing, without the package around it, which imports torchvision."""
    found = importlib.util.find_spec("timm")
    if found is None or found.origin is None:
        pytest.skip("timm is not installed")
    file = Path(found.origin).parent / "data" / "mixup.py"
    spec = importlib.util.spec_from_file_location("mixup_of_timm", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def reversed_partners(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every sample is mixed with the one in the mirrored place, as timm does it, in place of a random one."""
    monkeypatch.setattr(torch, "randperm", lambda count, **_: torch.arange(count - 1, -1, -1))


@pytest.mark.usefixtures("reversed_partners")
@pytest.mark.parametrize("share", [0.0, 0.3, 0.85, 1.0])
def test_mixup_is_that_of_timm(timm: ModuleType, monkeypatch: pytest.MonkeyPatch, share: float):
    images = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    targets = torch.tensor([0, 1, 2, 3, 4, 0])
    monkeypatch.setattr("repertoire.methods._mix._share", lambda _: share)
    monkeypatch.setattr(np.random, "beta", lambda *_: share)
    found = mixup(Batch((images,), targets, torch.arange(6)), C)
    theirs, expected = timm.Mixup(mixup_alpha=1.0, label_smoothing=0.0, num_classes=C)(images.clone(), targets)
    torch.testing.assert_close(found.images, theirs, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.targets, expected.to(found.targets), rtol=1e-6, atol=1e-6)


@pytest.mark.usefixtures("reversed_partners")
def test_cutmix_targets_are_those_of_the_pixels_as_in_timm(timm: ModuleType, monkeypatch: pytest.MonkeyPatch):
    """timm draws its rectangle from NumPy; whatever the rectangle, the target is the share of what is left."""
    images = torch.arange(6).float()[:, None, None, None].expand(6, 1, 16, 16).contiguous()
    targets = torch.tensor([0, 1, 2, 3, 4, 0])
    monkeypatch.setattr("repertoire.methods._mix._share", lambda _: 0.4)
    found = cutmix(Batch((images,), targets, torch.arange(6)), C)
    theirs = timm.Mixup(mixup_alpha=0.0, cutmix_alpha=1.0, label_smoothing=0.0, num_classes=C)
    mixed, expected = theirs(images.clone(), targets)
    for pixels, soft in ((found.images, found.targets), (mixed, expected)):
        kept = (pixels == images).float().mean((1, 2, 3))
        for i, j in enumerate(range(5, -1, -1)):
            wanted = torch.zeros(C)
            wanted[targets[i]] += kept[i]
            wanted[targets[j]] += 1 - kept[i]
            torch.testing.assert_close(soft[i].float(), wanted, rtol=1e-6, atol=1e-6)

from __future__ import annotations

import math

import pytest
import torch

from repertoire import backbones, heads, losses
from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.methods import Classifier, Normalize, Replay, Supervised


def make(kind: type, **options: object):
    torch.manual_seed(0)
    net = backbones.ConvNet(in_channels=1, image_size=4, width=4, depth=1)
    model = Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 4))
    return kind(model, losses.CrossEntropy(), **options).eval()


def batch(count: int, first: int, seed: int) -> Batch:
    images = torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    return Batch((images,), first + torch.arange(count) % 2, torch.arange(count))


def test_the_loss_is_the_mean_over_new_and_remembered_samples():
    method, new, old = make(Replay), batch(6, 2, 0), batch(3, 0, 1)
    total = 0.0
    for part in (new, old):
        for image, target in zip(part.images, part.targets, strict=True):
            scores = method.model(image[None])[0].double().tolist()
            total += math.log(sum(math.exp(s) for s in scores)) - scores[int(target)]
    new.streams = {"replay": old}
    assert float(method.step(new).loss) == pytest.approx(total / 9, rel=1e-5)


def test_without_a_memory_it_is_supervised():
    torch.testing.assert_close(make(Replay).step(batch(6, 2, 0)).loss, make(Supervised).step(batch(6, 2, 0)).loss)


def test_mixing_takes_partners_from_the_memory_too():
    method, new = make(Replay, mix="mixup").train(), batch(6, 2, 0)
    new.streams = {"replay": batch(6, 0, 1)}
    assert method.step(new).loss.isfinite()


def test_the_ratio_is_that_of_the_stream():
    assert make(Replay, ratio=0.5).needs.streams["replay"].per_sample == 0.5
    assert Replay.needs.streams["replay"].optional
    with pytest.raises(ConfigError, match="ratio must be positive"):
        make(Replay, ratio=0)

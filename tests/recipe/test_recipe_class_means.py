"""Means of a teacher's features that a run gives to a method: over its training set, as evaluation sees it."""

from __future__ import annotations

import numpy as np
import torch

from repertoire import backbones, heads, recipe
from repertoire.methods import Classifier, Normalize
from repertoire.recipe import _build


def test_a_run_brings_the_means_of_its_training_set(monkeypatch):
    torch.manual_seed(1)
    net = backbones.ConvNet(in_channels=1, image_size=8, width=4, depth=2)
    teacher = Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 10)).eval()
    monkeypatch.setattr(_build, "_teacher", lambda config: teacher)
    config = recipe.make_config(
        data="digits", backbone="convnet:width=4,depth=2", method="distil:norm_direction=1", teacher="runs/a"
    )
    splits = recipe.load_splits(config)
    found = recipe.build(config, splits).method.class_means
    pixels = torch.from_numpy(splits.train.pixels(np.arange(len(splits.train)))).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        features = teacher.embed(pixels.float())
    labels = torch.as_tensor(np.asarray(splits.train.labels))
    torch.testing.assert_close(found, torch.stack([features[labels == y].mean(0) for y in range(10)]))
    assert not recipe.build(config, splits, weights=False).method.class_means.any()

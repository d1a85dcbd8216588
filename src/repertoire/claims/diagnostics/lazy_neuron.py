"""The claim of *The Lazy Neuron Phenomenon: On Emergence of Activation Sparsity in Transformers* (2022)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import accuracy, new_method, optimise, resolved
from repertoire.claims.beds.handwriting import GARMENTS, split_images
from repertoire.claims.beds.learned import must_have_learned
from repertoire.claims.beds.raw import raw_accuracy
from repertoire.data import Splits, plain
from repertoire.diagnostics import activation_sparsity
from repertoire.methods import Method


def _with_rectifiers(method: Method) -> Method:
    """The same transformer with ReLU between the two layers of each MLP, as in the paper, in the place of GELU."""
    for module in method.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.GELU):
                setattr(module, name, nn.ReLU())
    return method


def _active(method: Method, images: Tensor) -> float:
    """Mean over the MLPs of the share of their units that are active for a token."""
    layers = activation_sparsity(method.model.eval(), images)
    return float(np.mean([layer.active for layer in layers]))


@claim(
    "lazy-neuron",
    statement=(
        "After training, the share of the units of a transformer's MLPs that are active for a token is lower than "
        "before, by a tenth of all units."
    ),
    metric="share of active units behind the ReLU of an MLP, mean over the layers",
    method="trained transformer",
    baseline="the same transformer before training",
    bed="fashion-mnist",
    data=GARMENTS + ", a transformer of three layers on four patches",
    threshold=0.1,
    higher_is_better=False,
    guard="the trained network has to classify better than class means or neighbours of the pixels do",
)
def lazy_neurons(budget: Budget, seed: int) -> Measured:
    """Li et al., *The Lazy Neuron Phenomenon: On Emergence of Activation Sparsity in Transformers* (2022).

    `extra` has the same with labels drawn at random, and with an eighth of the hidden width, of which the paper says
    that the first are sparse as well and that the wider a layer is, the sparser it becomes. Patches of two pixels of
    digits had been taken before, on which as much training came to a third of the test images, where neighbours of raw
    pixels have nine tenths. On pilot seed 1000, this network has 0.832, and they 0.806.
    """
    splits = split_images(budget, seed, budget.pick(smoke=200, small=3000, full=9000), bed="fashion-mnist")
    images = plain(torch.from_numpy(splits.test.pixels(np.arange(200)))).to(budget.device)

    def trained(ratio: float, data: Splits) -> tuple[float, float, float]:
        depth, width = budget.pick(smoke=(1, 16), small=(3, 64), full=(6, 96))
        config = resolved(
            data,
            backbone=f"vit:patch=7,dim={width},depth={depth},heads=2,mlp_ratio={ratio}",
            optimizer="adamw",
            lr=2e-3,
            augment="none",
            batch_size=64,
            epochs=budget.pick(smoke=1, small=20, full=100),
            seed=seed,
            device=budget.device,
        )
        method = _with_rectifiers(new_method(data, config))
        before = _active(method, images)
        method = optimise(method, data, config)
        return before, _active(method, images), accuracy(method, data.test)

    before, after, right = trained(4, splits)
    floor = raw_accuracy(splits)
    must_have_learned(budget, right, floor)
    labels = np.random.default_rng(seed).permutation(splits.train.labels)
    random = trained(4, replace(splits, train=replace(splits.train, labels=labels)))[1]
    narrow = trained(0.5, splits)[1]
    extra = {"random labels": random, "an eighth of the width": narrow, "test accuracy": right}
    return Measured(after, before, {**extra, "raw pixels": floor})

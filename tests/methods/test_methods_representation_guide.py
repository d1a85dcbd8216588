"""Guidance: the term is the measured CKA of paired layers, the guide stands still, and the term ends when it is to."""

from __future__ import annotations

import pytest
import torch

from repertoire import backbones, heads, losses, recipe
from repertoire.data import Batch
from repertoire.diagnostics import linear_cka
from repertoire.errors import ConfigError
from repertoire.methods import Classifier, Normalize, RepresentationGuide, Stage
from repertoire.rules import Backprop

GUIDE = "convnet:width=4,depth=3"


def classifier(seed: int = 0, depth: int = 5) -> Classifier:
    torch.manual_seed(seed)
    net = backbones.MLP(in_channels=1, image_size=8, hidden=12, depth=depth)
    return Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 3))


def guided(model: Classifier | None = None, **options: object) -> RepresentationGuide:
    return RepresentationGuide(
        model or classifier(), losses.CrossEntropy(), **({"image_size": 8, "guide": GUIDE} | options)
    )


def batch_of(count: int = 12) -> Batch:
    images = torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return Batch((images,), torch.arange(count) % 3, torch.arange(count))


@pytest.mark.parametrize("unbiased", [False, True])
def test_is_one_less_the_cka_that_is_measured(unbiased):
    method, batch = guided(unbiased=unbiased, weight=0.5).double().eval(), batch_of()
    blocks = len(method.teacher.backbone.blocks)
    assert method.pairs[0] == (0, 0)
    assert method.pairs[-1] == (4, blocks - 1)
    images = batch.images.double()
    with torch.no_grad():
        x = y = method.model.normalize(images)
        own, theirs = [], []
        for block in method.model.backbone.blocks:
            own.append(x := block(x))
        for block in method.teacher.backbone.blocks:
            theirs.append(y := block(y))
    apart = [1 - linear_cka(own[i].flatten(1), theirs[j].flatten(1), unbiased=unbiased) for i, j in method.pairs]
    step = method.step(Batch((images,), batch.targets, batch.index))
    plain = losses.cross_entropy(method.model(images), batch.targets)
    assert float(step.loss.detach() - plain.detach()) == pytest.approx(0.5 * sum(apart), rel=1e-8)


def test_a_network_guides_itself_for_nothing():
    model = classifier().eval()
    method = guided(model, guide="", teacher=classifier(), layers=2).eval()
    assert method.pairs == ((0, 0), (4, 4))
    assert float(method.step(batch_of()).logs["guide_distance"]) == pytest.approx(0, abs=1e-5)


def test_the_guide_takes_no_gradient_and_stands_still():
    method = guided().train()
    kept = {name: value.clone() for name, value in method.teacher.state_dict().items()}
    rule = Backprop()
    rule.setup(method, lambda module: torch.optim.SGD(module.parameters(), lr=0.1))
    rule.step(method, batch_of())
    assert not method.teacher.training
    assert all(torch.equal(value, kept[name]) for name, value in method.teacher.state_dict().items())


@pytest.mark.parametrize(("until", "guided_epochs"), [(0.0, 0), (0.2, 2), (0.25, 3), (1.0, 10)])
def test_the_term_ends(until, guided_epochs):
    method = guided(until=until)
    method.begin(Stage(epochs=10))
    told = []
    for epoch in range(10):
        method.begin_epoch(epoch)
        told.append("guide_distance" in method.step(batch_of()).logs)
    assert told == [True] * guided_epochs + [False] * (10 - guided_epochs)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match=r"needs a guide: .* found neither"):
        guided(guide="")
    with pytest.raises(ConfigError, match=r"needs a guide: .* found both"):
        guided(teacher=classifier())
    with pytest.raises(ConfigError, match="layers is 6, and the shallower"):
        guided(layers=6)


def test_a_guide_with_random_weights_needs_no_run():
    config = recipe.make_config(
        data="digits", backbone="mlp:hidden=16,depth=3", method=f"representation-guide:guide=({GUIDE})"
    )
    method = recipe.build(config, recipe.load_splits(config)).method
    assert method.needs.reference == ""

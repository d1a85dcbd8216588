"""A batch in pieces is the batch, in what is drawn for it too: how samples are mixed, and which loss is drawn."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from repertoire import losses, registry, rules
from repertoire.data import Batch
from repertoire.errors import ConfigError, ShapeError
from repertoire.methods import Classifier, Method, Normalize, Replay, Supervised

PIECES = {
    "backprop": rules.Backprop,
    "checkpoint": rules.Checkpoint,
    "sam": lambda: rules.SAM(rho=0.01),
    "gradcache": lambda: rules.GradCache(chunk=4),
    "alternating": rules.Alternating,
}


def classifier() -> Classifier:
    torch.manual_seed(0)
    net = registry.build("backbones", "vit:patch=4,dim=12,depth=1,heads=2", in_channels=1, image_size=8)
    head = registry.build("heads", "linear", in_features=net.out_features, num_classes=4)
    return Classifier(Normalize([0.5], [0.25]), net, head)


def batch_of(count: int = 12) -> Batch:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(count, 1, 8, 8, generator=generator, dtype=torch.float64)
    return Batch((images,), torch.arange(count) % 4, torch.arange(count))


def after_a_step(method: Method, rule: rules.Rule, pieces: int) -> dict[str, Tensor]:
    method = copy.deepcopy(method)
    rule.setup(method, lambda module: torch.optim.SGD(module.parameters(), lr=0.1), accumulate=pieces)
    torch.manual_seed(7)
    rule.step(method, batch_of())
    return method.state_dict()


@pytest.mark.parametrize("rule", PIECES)
@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
def test_samples_are_mixed_once_a_step(mix: str, rule: str):
    method = Supervised(classifier(), losses.CrossEntropy(), mix=mix).double()
    whole, pieces = (after_a_step(method, PIECES[rule](), count) for count in (1, 3))
    torch.testing.assert_close(pieces, whole, rtol=1e-9, atol=1e-11)
    plain = after_a_step(Supervised(classifier(), losses.CrossEntropy()).double(), PIECES[rule](), 1)
    assert any(not torch.allclose(plain[name], value) for name, value in whole.items())


def test_a_step_that_fails_leaves_the_method_as_it_was():
    method = Supervised(classifier(), losses.CrossEntropy(), mix="mixup").double()
    rule = rules.Backprop()
    rule.setup(method, lambda module: torch.optim.SGD(module.parameters(), lr=0.1), accumulate=3)
    with pytest.raises(ShapeError):
        rule.step(method, Batch((torch.rand(12, 1, 9, 9).double(),), torch.arange(12) % 4, torch.arange(12)))
    mixed = method.transform(batch_of())
    assert mixed.targets.shape == (12, 4)


def test_a_loss_that_is_drawn_is_drawn_for_the_whole_batch():
    method = Supervised(classifier(), losses.EnsLoss()).double()
    for name in ("backprop", "checkpoint", "sam", "gradcache"):
        with pytest.raises(ConfigError, match=r"something is drawn once for all of them.*Use rule gradcache"):
            PIECES[name]().check(method, accumulate=2)
    # The way out that the message names draws once for all that passed chunk by chunk.
    whole, chunks = (after_a_step(method, PIECES[name](), 1) for name in ("backprop", "gradcache"))
    torch.testing.assert_close(chunks, whole, rtol=1e-9, atol=1e-11)


def test_replayed_samples_are_mixed_with_new_ones_and_not_piece_by_piece():
    assert Replay(classifier(), losses.CrossEntropy()).needs.per_sample
    with pytest.raises(ConfigError, match="accumulate"):
        rules.Backprop().check(Replay(classifier(), losses.CrossEntropy(), mix="mixup"), accumulate=2)

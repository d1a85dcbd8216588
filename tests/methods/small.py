"""A small network, its batches, and what every method without labels must bear: tests of several share it."""

from __future__ import annotations

import copy

import torch

from repertoire import backbones, heads
from repertoire.data import Batch
from repertoire.methods import Classifier, Method, Normalize
from repertoire.rules import Backprop

__all__ = ["batch_of", "classifier", "goes_on_exactly", "leaves_no_trace", "train"]


def classifier(classes: int = 3, net: backbones.Backbone | None = None) -> Classifier:
    torch.manual_seed(0)
    net = net or backbones.ConvNet(in_channels=1, image_size=8, width=4, depth=2)
    return Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, classes))


def batch_of(seed: int = 0, count: int = 6, views: int = 2) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = tuple(torch.rand(count, 1, 8, 8, generator=generator) for _ in range(views))
    return Batch(images, torch.arange(count) % 3, torch.arange(count))


def train(method: Method, seeds: range) -> list[float]:
    method.train()
    rule = Backprop()
    rule.setup(method, lambda module: torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.1))
    return [float(rule.step(method, batch_of(seed, views=method.needs.view_count))["loss"]) for seed in seeds]


def goes_on_exactly(method: Method) -> None:
    """After some steps, brought over into a copy that is empty: everything that a step depends on is in the state."""
    train(method, range(3))
    other = copy.deepcopy(method)
    for tensor in (*other.parameters(), *other.buffers()):
        tensor.data.zero_()
    other.load_state_dict(method.state_dict())
    assert train(method, range(3, 6)) == train(other, range(3, 6))
    for mine, theirs in zip(method.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)


def leaves_no_trace(method: Method) -> None:
    """A step that is not trained on, in evaluation mode, changes nothing and is not remembered."""
    method.eval()
    before = copy.deepcopy(method.state_dict())
    with torch.no_grad():
        method.step(batch_of(views=method.needs.view_count))
    for name, value in method.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(getattr(method, kept, None) is None for kept in ("_keys", "_mean"))

"""Prompts by keys, masks over classes, and weights for what is about to be overlooked."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from repertoire import backbones, heads
from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.methods import MVP, Classifier, Normalize

K, P = 3, 4


def method_of(**options) -> MVP:
    torch.manual_seed(0)
    net = backbones.ConvNet(in_channels=1, image_size=8, width=4, depth=2)
    head = heads.KeyedMask(net.out_features, K, prompts=P)
    with torch.no_grad():
        head.mask.normal_()
        head.shift.normal_()
        head.usage.counts.copy_(torch.tensor([3.0, 0.0, 1.0, 2.0]))
    return MVP(Classifier(Normalize([0.5], [0.25]), net, head), prompts=P, **options).double().eval()


def batch_of(count: int = 7, seed: int = 1) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, 1, 8, 8, generator=generator, dtype=torch.float64)
    return Batch((images,), torch.arange(count) % K, torch.arange(count))


def by_hand(method: MVP, batch: Batch) -> tuple[list[float], list[float], float]:
    """For each sample what the gradients say, by a backward pass for each, and its loss; and the loss of the keys."""
    head = method.model.head
    features = method.model.embed(batch.images).detach()
    chosen = [int(head.nearest(z[None])) for z in features]
    masks = [2 * head.mask[:, p].sigmoid() for p in chosen]
    shifted = [z + head.shift[p] for z, p in zip(features, chosen, strict=True)]

    def loss_of(i: int, scale: float = 1.0) -> torch.Tensor:
        logits = (head.linear.weight @ (shifted[i].detach() * scale) + head.linear.bias) * masks[i].detach()
        return -logits.log_softmax(0)[batch.targets[i]]

    whole = torch.autograd.grad(torch.stack([loss_of(i) for i in range(len(batch))]).mean(), head.linear.weight)[0]
    overlooked, losses = [], []
    for i, y in enumerate(batch.targets.tolist()):
        own = torch.autograd.grad(loss_of(i), head.linear.weight)[0][y]
        overlooked.append(1 - float(F.cosine_similarity(own, whole[y], dim=0)))
        scale = 1.0
        if method.margin is not None:
            scale = 1 / (1 - float(F.cosine_similarity(head.linear.weight[y], shifted[i], dim=0)) + method.margin)
        losses.append(float(loss_of(i, scale)))
    pull, push = 0.0, 0.0
    for z, p in zip(features, chosen, strict=True):
        mass = float(head.usage.counts[p]) + 1
        keys = method.keys.detach()
        pull += math.exp((1 - float(F.cosine_similarity(z, keys[p], dim=0))) / mass) / len(batch)
        for q in range(P):
            push += math.exp((1 - float(F.cosine_similarity(keys[p], keys[q], dim=0))) / mass) / len(batch) / P
    return overlooked, losses, -math.log(push / (pull + push))


@pytest.mark.parametrize(
    "options", [{}, {"alpha": 1.0, "gamma": 0.5}, {"margin": None, "alpha": 0.3}, {"keys": 0.0, "margin": 2.0}]
)
def test_is_its_formula(options: dict[str, float]):
    method, batch = method_of(**options), batch_of()
    overlooked, losses, apart = by_hand(method, batch)
    weights = [1 - method.alpha + method.alpha * each**method.gamma for each in overlooked]
    expected = sum(w * each for w, each in zip(weights, losses, strict=True)) / len(batch) + method.weight * apart
    step = method.step(batch)
    assert float(step.logs["key_loss"]) == pytest.approx(apart)
    assert float(step.logs["overlooked"]) == pytest.approx(sum(overlooked) / len(batch))
    assert float(step.loss.detach()) == pytest.approx(expected)


def test_without_its_parts_it_is_cross_entropy_of_the_head():
    method, batch = method_of(alpha=0.0, margin=None, keys=0.0), batch_of()
    torch.testing.assert_close(method.step(batch).loss, F.cross_entropy(method.model(batch.images), batch.targets))


def test_keys_come_nearer_to_what_they_get_and_the_head_is_told():
    method, batch = method_of().train(), batch_of(30)
    head = method.model.head
    optimizer = torch.optim.Adam([method.keys], lr=0.05)
    first = None
    for _ in range(60):
        optimizer.zero_grad()
        step = method.step(batch)
        step.loss.backward()
        optimizer.step()
        method.after_update()
        first = first or float(step.logs["key_loss"])
    assert torch.equal(head.keys, method.keys)
    assert head.usage.counts.sum() == 6 + 60 * 30
    head.usage.counts.zero_()
    assert float(method.eval().step(batch).logs["key_loss"]) < first


def test_remembered_samples_are_part_of_the_batch():
    method, new, old = method_of(), batch_of(4), batch_of(3, seed=2)
    together = method.step(new.join(old)).loss
    new.streams = {"replay": old}
    torch.testing.assert_close(method.step(new).loss, together)


def test_another_head_is_refused():
    net = backbones.ConvNet(in_channels=1, image_size=8, width=4, depth=2)
    for head in (heads.Linear(net.out_features, K), heads.KeyedMask(net.out_features, K, prompts=P + 1)):
        with pytest.raises(ConfigError, match="leave the head out"):
            MVP(Classifier(Normalize([0.5], [0.25]), net, head), prompts=P)

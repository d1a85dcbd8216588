from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from repertoire import losses
from repertoire.backbones import ConvNet, Identity
from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.heads import Dense, Linear
from repertoire.methods import BatchFormer, Classifier, Normalize, Supervised
from repertoire.rules import Backprop


def made(**options: object) -> BatchFormer:
    torch.manual_seed(0)
    model = Classifier(Normalize([0.0] * 8, [1.0] * 8), Identity(8), Linear(8, 3))
    return BatchFormer(model, losses.CrossEntropy(), **options).double().eval()


def rows(count: int = 7) -> Batch:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, 8, generator=generator, dtype=torch.float64)
    return Batch((x,), torch.arange(count) % 3, torch.arange(count))


def attended(layer: nn.TransformerEncoderLayer, x: Tensor) -> Tensor:
    """The encoder layer as in Vaswani et al. (2017), one query and one head after the other."""
    width, heads = x.shape[1], layer.self_attn.num_heads
    each = width // heads
    q, k, v = (x @ layer.self_attn.in_proj_weight.T + layer.self_attn.in_proj_bias).split(width, dim=1)
    mixed = torch.zeros_like(x)
    for i in range(len(x)):
        for h in range(heads):
            part = slice(h * each, (h + 1) * each)
            scores = torch.stack([q[i, part] @ k[j, part] for j in range(len(x))]) / math.sqrt(each)
            mixed[i, part] = sum(p * v[j, part] for j, p in enumerate(scores.softmax(0)))
    first = layer.norm1(x + layer.self_attn.out_proj(mixed))
    return layer.norm2(first + layer.linear2(layer.linear1(first).relu()))


def test_the_batch_is_a_sequence():
    method = made()
    x = rows().images
    torch.testing.assert_close(method.related(x), attended(method.layers[0], x))


def test_the_loss_is_the_mean_over_both_halves():
    method, given = made(), rows()
    logits = method.model.head(torch.cat([given.images, attended(method.layers[0], given.images)]))
    expected = nn.functional.cross_entropy(logits, given.targets.repeat(2))
    torch.testing.assert_close(method.step(given).loss, expected)


def test_the_order_of_the_batch_does_not_matter():
    method, given = made(layers=2), rows()
    order = torch.randperm(7)
    torch.testing.assert_close(method.related(given.images[order]), method.related(given.images)[order])
    mixed = Batch((given.images[order],), given.targets[order], given.index[order])
    torch.testing.assert_close(method.step(mixed).loss, method.step(given).loss)


def test_samples_look_at_each_other_unless_each_is_alone():
    x = rows().images.requires_grad_()
    for across, touched in (("batch", True), ("none", False)):
        (gradient,) = torch.autograd.grad(made(across=across).related(x)[0, 0], x)  # normalised sums are 0
        assert bool(gradient[1:].any()) == touched
    alone = made(across="none")
    torch.testing.assert_close(alone.related(x)[2:3], made().related(x[2:3]))


def test_what_is_left_is_the_network_as_without_the_layer():
    """Same names, and an answer that no other sample changes."""
    method, given = made(shared=False), rows()
    plain = Supervised(Classifier(Normalize([0.0] * 8, [1.0] * 8), Identity(8), Linear(8, 3)), losses.CrossEntropy())
    assert method.model.state_dict().keys() == plain.model.state_dict().keys()
    torch.testing.assert_close(method.model(given.images)[:1], method.model(given.images[:1]))


def test_a_rare_sample_is_reached_through_the_others():
    """The gradient of one sample's loss after the layer, at the features of the others."""
    method, given = made(), rows()
    features = given.images.requires_grad_()
    loss = nn.functional.cross_entropy(method.model.head(method.related(features))[:1], given.targets[:1])
    (gradient,) = torch.autograd.grad(loss, features)
    assert gradient[1:].abs().sum(1).min() > 1e-4


def test_a_second_classifier_learns_only_after_the_layer():
    method, given = made(shared=False), rows()
    before = method.other.linear.weight
    assert before is not method.model.head.linear.weight
    method.step(given).loss.backward()
    expected = nn.functional.cross_entropy(method.model.head(given.images), given.targets) / 2
    (alone,) = torch.autograd.grad(expected, method.model.head.linear.weight)
    torch.testing.assert_close(method.model.head.linear.weight.grad, alone)


def test_batches_are_not_split():
    with pytest.raises(ConfigError, match="accumulate"):
        Backprop().check(made(), accumulate=2)
    assert made().needs.within_rank


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="use attention_heads=1"):
        made(attention_heads=3)
    net = ConvNet(in_channels=1, image_size=8, width=4, depth=2)
    model = Classifier(Normalize([0.5], [0.25]), net, Dense(net.out_features, 3))
    with pytest.raises(ConfigError, match="wants maps"):
        BatchFormer(model, losses.CrossEntropy())

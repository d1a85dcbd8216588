from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from repertoire import backbones, losses
from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.methods import Classifier, Embedding, Normalize, Supervised


def classifier(classes: int = 4, head: str = "linear") -> Classifier:
    from repertoire import registry

    net = backbones.ConvNet(in_channels=1, image_size=8, width=8, depth=2)
    return Classifier(
        Normalize([0.5], [0.25]), net, registry.build("heads", head, in_features=net.out_features, num_classes=classes)
    )


def batch_of(views: int, targets: list[int]) -> Batch:
    generator = torch.Generator().manual_seed(0)
    images = tuple(torch.rand(len(targets), 1, 8, 8, generator=generator) for _ in range(views))
    return Batch(images, torch.tensor(targets), torch.arange(len(targets)))


def test_normalize_is_the_formula_and_survives_a_constant_channel():
    images = torch.rand(2, 3, 4, 4)
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.6, 0.0]
    out = Normalize(mean, std)(images)
    torch.testing.assert_close(out[:, 1], (images[:, 1] - 0.2) / 0.6)
    assert out.isfinite().all()


def test_supervised_loss_is_cross_entropy_of_the_model():
    method, batch = Supervised(classifier(), losses.CrossEntropy()), batch_of(1, [0, 1, 2, 1])
    method.eval()
    step = method.step(batch)
    torch.testing.assert_close(step.loss, F.cross_entropy(method.model(batch.images), batch.targets))
    assert step.logs["accuracy"] == (method.model(batch.images).argmax(1) == batch.targets).float().mean()


def test_supervised_sums_the_outputs_of_a_nested_head():
    method, batch = Supervised(classifier(head="matryoshka"), losses.CrossEntropy()), batch_of(1, [0, 1, 2, 1])
    method.eval()
    outputs = method.model.head.outputs(method.model.embed(batch.images), batch.targets)
    assert len(outputs) > 1
    expected = sum(weight * F.cross_entropy(logits, batch.targets) for weight, logits in outputs)
    torch.testing.assert_close(method.step(batch).loss, expected)


def test_the_read_out_sends_no_gradient_into_the_encoder():
    method = Embedding(classifier(), losses.SupCon())
    batch = batch_of(2, [0, 0, 1, 1])
    features = method.model.embed(torch.cat(batch.views))
    labels = batch.targets.repeat(2)
    contrastive = losses.SupCon()(method.projector(features), labels)
    expected = torch.autograd.grad(contrastive, list(method.model.backbone.parameters()))
    found = torch.autograd.grad(method.step(batch).loss, list(method.model.backbone.parameters()))
    for a, b in zip(expected, found, strict=True):
        torch.testing.assert_close(a, b)


def test_unlabelled_samples_leave_the_read_out_alone():
    method = Embedding(classifier(), losses.NTXent())
    method.step(batch_of(2, [-1, -1, -1, -1])).loss.backward()
    assert all(p.grad is None or not p.grad.any() for p in method.model.head.parameters())
    assert any(p.grad is not None and p.grad.any() for p in method.model.backbone.parameters())


def test_each_unlabelled_sample_is_a_class_of_its_own():
    method = Embedding(classifier(), losses.SupCon())
    method.eval()
    alone = method.step(batch_of(2, [-1, -1, -1, -1])).logs["loss"]
    distinct = method.step(batch_of(2, [0, 1, 2, 3])).logs["loss"]
    torch.testing.assert_close(alone, distinct)


def test_views_losses_get_one_tensor_a_view():
    method, batch = Embedding(classifier(), losses.NTXent()), batch_of(2, [0, 0, 1, 1])
    method.eval()
    views = method.projector(method.model.embed(torch.cat(batch.views))).chunk(2)
    torch.testing.assert_close(method.step(batch).logs["loss"], losses.NTXent()(*views).detach())


def test_targets_are_the_affair_of_the_loss():
    """Several labels a sample: nothing in the method knows of classes, and no accuracy is logged."""
    method, images = Supervised(classifier(classes=3), losses.Asymmetric()), torch.rand(4, 1, 8, 8)
    assert method.needs.targets == {"labels"}
    targets = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 0.0]])
    step = method.eval().step(Batch((images,), targets, torch.arange(4)))
    torch.testing.assert_close(step.loss, losses.Asymmetric()(method.model(images), targets))
    assert step.logs.keys() == {"loss"}


def test_a_sum_over_the_batch_is_no_mean_of_its_parts():
    assert Supervised(classifier(), losses.CrossEntropy()).needs.per_sample
    assert not Supervised(classifier(), losses.CrossEntropy(reduction="sum")).needs.per_sample
    with pytest.raises(ConfigError, match="reduction must be 'mean' or 'sum'"):
        Supervised(classifier(), losses.CrossEntropy(reduction="none"))


def test_each_method_refuses_the_other_kind_of_loss():
    with pytest.raises(ConfigError, match="embedding"):
        Supervised(classifier(), losses.SupCon())
    with pytest.raises(ConfigError, match="supervised"):
        Embedding(classifier(), losses.CrossEntropy())

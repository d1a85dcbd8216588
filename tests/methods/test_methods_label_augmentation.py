"""Label augmentation against its formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire import backbones, heads, losses
from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.methods import Classifier, LabelAugmentation, Normalize, Supervised

K = 3


def classifier(channels: int = 1) -> Classifier:
    torch.manual_seed(0)
    net = backbones.ConvNet(in_channels=channels, image_size=8, width=4, depth=2)
    return Classifier(Normalize([0.5] * channels, [0.25] * channels), net, heads.Linear(net.out_features, K))


def batch_of(count: int = 5, channels: int = 1) -> Batch:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(count, channels, 8, 8, generator=generator)
    return Batch((images,), torch.arange(count) % K, torch.arange(count))


def softmax(row: list[float]) -> list[float]:
    total = sum(math.exp(value) for value in row)
    return [math.exp(value) / total for value in row]


@pytest.mark.parametrize(("transforms", "channels", "versions"), [("rotation", 1, 4), ("colour", 3, 6), ("none", 1, 1)])
def test_is_its_formula(transforms: str, channels: int, versions: int):
    method = LabelAugmentation(classifier(channels), losses.CrossEntropy(), transforms, plain=0.6, distil=0.3)
    method.double().eval()
    batch = batch_of(channels=channels).map(lambda t: t.double() if t.is_floating_point() else t)
    model = method.model
    joint_loss, plain_loss, distilled = 0.0, 0.0, 0.0
    for image, y in zip(batch.images, batch.targets.tolist(), strict=True):
        shown = [method.made_of(image[None])[j] for j in range(versions)]
        logits = [method.joint(model.embed(one[None]))[0].tolist() for one in shown]
        joint_loss += sum(-math.log(softmax(row)[y * versions + j]) for j, row in enumerate(logits)) / versions
        together = softmax([sum(logits[j][c * versions + j] for j in range(versions)) / versions for c in range(K)])
        said = softmax(model(image[None])[0].tolist())
        plain_loss -= math.log(said[y])
        distilled += sum(p * (math.log(p) - math.log(q)) for p, q in zip(together, said, strict=True))
    step = method.step(batch)
    assert float(step.loss.detach()) == pytest.approx((joint_loss + 0.6 * plain_loss + 0.3 * distilled) / 5)
    assert float(step.logs["joint_loss"]) == pytest.approx(joint_loss / 5)


def test_what_all_versions_say_is_the_geometric_mean_of_what_each_says():
    method = LabelAugmentation(classifier(), losses.CrossEntropy()).double().eval()
    images = batch_of().images.double()
    found = method.aggregated(images).softmax(1)
    product = torch.ones_like(found)
    for j in range(4):
        logits = method.joint(method.model.embed(images.rot90(j, (2, 3))))
        product = product * logits[:, j::4].softmax(1) ** (1 / 4)
    torch.testing.assert_close(found, product / product.sum(1, keepdim=True))


def test_of_one_version_the_joint_loss_is_supervised_training():
    method = LabelAugmentation(classifier(), losses.CrossEntropy(), "none").eval()
    twin = classifier()
    head = heads.Linear(twin.backbone.out_features, K)
    for own, other in zip(head.parameters(), method.joint.parameters(), strict=True):
        own.data.copy_(other)
    plain = Supervised(Classifier(twin.normalize, method.model.backbone, head), losses.CrossEntropy()).eval()
    torch.testing.assert_close(method.step(batch_of()).logs["joint_loss"], plain.step(batch_of()).loss.detach())


def test_versions_are_turned_and_recoloured():
    image = torch.arange(4.0).view(1, 1, 2, 2)
    turned = LabelAugmentation(classifier(), losses.CrossEntropy()).made_of(image)
    assert torch.equal(turned[0], image[0])
    assert len({tuple(one.flatten().tolist()) for one in turned}) == 4
    assert torch.equal(turned[1].rot90(3, (1, 2)), image[0])
    colours = torch.arange(3.0).view(1, 3, 1, 1)
    found = LabelAugmentation(classifier(3), losses.CrossEntropy(), "colour").made_of(colours)
    assert {tuple(one.flatten().tolist()) for one in found} == {
        (0.0, 1.0, 2.0), (0.0, 2.0, 1.0), (1.0, 0.0, 2.0), (1.0, 2.0, 0.0), (2.0, 0.0, 1.0), (2.0, 1.0, 0.0)
    }  # fmt: skip
    assert torch.equal(found[0], colours[0])


def gradient_of_joint(distil: float) -> Tensor:
    method = LabelAugmentation(classifier(), losses.CrossEntropy(), distil=distil).eval()
    torch.nn.init.constant_(method.joint.weight, 0.01)
    return torch.autograd.grad(method.step(batch_of()).loss, method.joint.weight)[0]


def test_what_is_taught_takes_no_gradient():
    torch.testing.assert_close(gradient_of_joint(0.0), gradient_of_joint(5.0))


def test_the_plain_head_learns_what_all_versions_say():
    """With its own labels taken away, the head comes to agree with the aggregated answers."""
    method = LabelAugmentation(classifier(), losses.CrossEntropy(), plain=0.0)
    batch = batch_of(12)
    optimizer = torch.optim.Adam(method.parameters(), lr=1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        method.step(batch).loss.backward()
        optimizer.step()
    assert (method.model.eval()(batch.images).argmax(1) == batch.targets).float().mean() > 0.9
    assert F.cross_entropy(method.model(batch.images), batch.targets) < 0.5


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="three channels"):
        LabelAugmentation(classifier(), losses.CrossEntropy(), "colour")
    with pytest.raises(ConfigError, match="leaves the head untrained"):
        LabelAugmentation(classifier(), losses.CrossEntropy(), plain=0, distil=0)
    method = LabelAugmentation(classifier(), losses.CrossEntropy())
    with pytest.raises(ConfigError, match=r"square images, found \[2, 1, 8, 6\]"):
        method.made_of(torch.rand(2, 1, 8, 6))
    with pytest.raises(ConfigError, match="transforms must be 'rotation'"):
        LabelAugmentation(classifier(), losses.CrossEntropy(), "flip")

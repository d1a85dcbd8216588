"""UnMixMatch: each of its terms is the component that it names, and nothing is guessed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire import losses, registry
from repertoire.data import Batch
from repertoire.errors import ConfigError, ShapeError
from repertoire.methods import Classifier, Normalize, UnMixMatch, mixup

C = 3


def classifier() -> Classifier:
    torch.manual_seed(0)
    net = registry.build("backbones", "vit:patch=4,dim=12,depth=1,heads=2", in_channels=1, image_size=8)
    head = registry.build("heads", "linear", in_features=net.out_features, num_classes=C)
    return Classifier(Normalize([0.5], [0.25]), net, head)


def batch_of(unlabelled: int = 6) -> Batch:
    generator = torch.Generator().manual_seed(1)
    main = Batch((torch.rand(4, 1, 8, 8, generator=generator),), torch.arange(4) % C, torch.arange(4))
    views = tuple(torch.rand(unlabelled, 1, 8, 8, generator=generator) for _ in range(2))
    stream = Batch(views, torch.full((unlabelled,), -1), torch.arange(unlabelled), names=("weak", "strong"))
    main.streams = {"unlabelled": stream}
    return main


def test_the_loss_is_that_of_its_three_parts():
    method = UnMixMatch(classifier(), losses.CrossEntropy(), contrast=0.3, rotation=0.7, temperature=0.2, alpha=1.0)
    batch = batch_of()
    turned: list[Tensor] = []
    method.turns.register_forward_pre_hook(lambda module, inputs: turned.append(inputs[0]))
    torch.manual_seed(5)
    step = method.step(batch)
    torch.manual_seed(5)
    mixed = mixup(batch, C, 1.0)
    supervised = losses.cross_entropy(method.model(mixed.images), mixed.targets)
    weak, strong = batch.streams["unlabelled"].views
    # Projections of both views together: batch normalisation sees them so.
    both = method.projector(method.model.embed(torch.cat([weak, strong])))
    contrast = losses.NTXent(temperature=0.2)(both[:6], both[6:])
    number = torch.randint(4, (6,))
    by_hand = torch.stack([torch.rot90(image, int(k), (1, 2)) for image, k in zip(strong, number, strict=True)])
    torch.testing.assert_close(turned[0], method.model.embed(by_hand))
    rotation = F.cross_entropy(method.turns(method.model.embed(by_hand)), number)
    torch.testing.assert_close(step.loss, supervised + 0.3 * contrast + 0.7 * rotation, rtol=1e-4, atol=1e-5)
    told = (method.turns(method.model.embed(by_hand)).argmax(1) == number).float().mean()
    assert float(step.logs["turns_told"]) == pytest.approx(float(told))


def test_the_classifier_learns_from_labelled_images_alone():
    """The head's gradient does not change with the unlabelled images: their answers are never asked for."""

    def gradient(seed: int) -> Tensor:
        method = UnMixMatch(classifier(), losses.CrossEntropy(), mix="none").eval()
        batch = batch_of()
        stream = batch.streams["unlabelled"]
        generator = torch.Generator().manual_seed(seed)
        stream.views = tuple(torch.rand(view.shape, generator=generator) for view in stream.views)
        method.step(batch).loss.backward()
        return next(method.model.head.parameters()).grad

    torch.testing.assert_close(gradient(1), gradient(2))


def test_what_is_refused():
    method = UnMixMatch(classifier(), losses.CrossEntropy())
    batch = batch_of()
    with pytest.raises(ConfigError, match="no stream 'unlabelled'"):
        method.step(Batch(batch.views, batch.targets, batch.index))
    with pytest.raises(ConfigError, match="makes soft targets"):
        UnMixMatch(classifier(), losses.ZLoss())
    with pytest.raises(ConfigError, match="rotation must be 0 or more"):
        UnMixMatch(classifier(), losses.CrossEntropy(), rotation=-1.0)
    from repertoire.methods._unmixmatch import turn

    with pytest.raises(ShapeError, match="square images"):
        turn(torch.zeros(2, 1, 4, 6))

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire import backbones, heads, losses
from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.methods import MAECIL, Classifier, Normalize, Rebuilding, Stage, patches_of, pixels_of

LABELS = torch.tensor([2, 2, 3, 3])


def method_of(channels: int = 1, size: int = 8, patch: int = 2, classes: int = 4, depth: int = 3, **options) -> MAECIL:
    torch.manual_seed(0)
    net = backbones.ViT(channels, size, patch=patch, dim=16, depth=depth, heads=2)
    model = Classifier(Normalize([0.4] * channels, [0.2] * channels), net, heads.Linear(16, classes))
    return MAECIL(model, losses.CrossEntropy(), image_size=size, **options).double()


def batch_of(images: torch.Tensor, labels: torch.Tensor = LABELS) -> Batch:
    return Batch((images,), labels, torch.arange(len(images)))


def high(image: np.ndarray) -> np.ndarray:
    """What is left of an image without the products of two slow cosines, one coefficient after the other."""
    size = len(image)
    waves = [
        np.array([math.cos(math.pi / size * (i + 0.5) * k) for i in range(size)])
        for k in range(max(1, round(0.7 * size)))
    ]
    waves = [wave / math.sqrt(sum(wave**2)) for wave in waves]
    left = image.copy()
    for down in waves:
        for across in waves:
            left -= (down @ image @ across) * np.outer(down, across)
    return left


def reference(method: MAECIL, images: torch.Tensor, labels: torch.Tensor, places: list[list[int]]) -> dict[str, float]:
    """The losses of a first stage, image by image and pixel by pixel."""
    count, (channels, size) = len(images), images.shape[1:3]
    side, edge = method.side, -(-size // method.side)
    seen, more = round(0.25 * side**2), round(9 / 16 * side**2)
    total = {"class": 0.0, "hidden": 0.0, "detail": 0.0}
    for n in range(count):
        image = images[n : n + 1]
        scores = method.model(image)[0].tolist()
        total["class"] += math.log(sum(math.exp(s) for s in scores)) - scores[int(labels[n])]
        few, many = (torch.tensor([sorted(places[n][:k])]) for k in (seen, more))
        layers = method.layers(image, few)
        main = method.paint(layers[-1], few)
        early = method.paint(method.expand(layers[1][:, :, :3]), few)
        better = method.paint(method.layers(image, many)[-1], many)
        main, early, better = (pixels_of(each, channels, size)[0].detach().numpy() for each in (main, early, better))
        wanted = (image[0].numpy() - 0.4) / 0.2
        for c in range(channels):
            fine = high(early[c])
            total["detail"] += abs(fine - high(better[c] - main[c])).mean() / channels
            for p in range(side**2):
                if p not in places[n][:seen]:
                    rows, columns = (slice(edge * i, edge * i + edge) for i in divmod(p, side))
                    found = main[c, rows, columns] + fine[rows, columns]
                    total["hidden"] += ((found - wanted[c, rows, columns]) ** 2).mean() / channels / (side**2 - seen)
    return {name: value / count for name, value in total.items()}


@settings(max_examples=6, deadline=None)
@given(st.sampled_from([1, 3]), st.sampled_from([(8, 2), (12, 4), (6, 1)]), st.integers(0, 99))
def test_a_step_is_what_a_slow_loop_finds(channels: int, shape: tuple[int, int], seed: int):
    method = method_of(channels, *shape)
    images = torch.rand(4, channels, shape[0], shape[0], generator=torch.Generator().manual_seed(seed)).double()
    torch.manual_seed(seed)
    step = method.step(batch_of(images))
    torch.manual_seed(seed)
    places = torch.rand(4, method.side**2).argsort(1).tolist()
    found = reference(method, images, LABELS, places)
    assert float(step.logs["classification_loss"]) == pytest.approx(found["class"], rel=1e-9)
    assert float(step.logs["rebuilding_loss"]) == pytest.approx(found["hidden"], rel=1e-6)
    assert float(step.logs["detail_loss"]) == pytest.approx(found["detail"], rel=1e-6)
    total = found["class"] + found["hidden"] + 0.64 * found["detail"]
    assert float(step.loss.detach()) == pytest.approx(total, rel=1e-6)


def test_remembered_images_are_learned_like_new_ones():
    method = method_of(detail=0)
    new, old = torch.rand(4, 1, 8, 8).double(), torch.rand(3, 1, 8, 8).double()
    batch = batch_of(new)
    batch.streams = {"replay": batch_of(old, torch.tensor([0, 1, 0]))}
    torch.manual_seed(1)
    found = method.step(batch)
    torch.manual_seed(1)
    together = method.step(batch_of(torch.cat([new, old]), torch.tensor([2, 2, 3, 3, 0, 1, 0])))
    torch.testing.assert_close(found.loss, together.loss)
    assert "detail_loss" not in found.logs


def test_the_network_before_the_stage_teaches_its_classes_as_far_as_they_are_all():
    method = method_of(classes=6, temperature=2.0)
    method.begin(Stage(1, 2, tuple("abcdef"), new=(4, 5)))
    before = method.teacher
    assert before is not None
    with torch.no_grad():
        for parameter in method.model.parameters():
            parameter.add_(0.05)
    images, labels = torch.rand(4, 1, 8, 8).double(), torch.tensor([4, 4, 5, 5])
    torch.manual_seed(1)
    found = method.step(batch_of(images, labels))
    method.teacher = None
    torch.manual_seed(1)
    plain = method.step(batch_of(images, labels))
    apart = 0.0
    for image in images:
        old, own = ((model(image[None])[0, :4] / 2).softmax(0).tolist() for model in (before, method.model))
        apart += sum(p * math.log(p / q) for p, q in zip(old, own, strict=True)) / 4
    assert float(found.logs["distillation_loss"]) == pytest.approx(apart, rel=1e-6)
    expected = float(plain.loss.detach()) / 3 + 2 / 3 * 4 * apart
    assert float(found.loss.detach()) == pytest.approx(expected, rel=1e-6)
    method_of(classes=6, distil=False).begin(Stage(1, 2, tuple("abcdef"), new=(4, 5)))


def test_without_distillation_nothing_of_the_old_network_is_kept():
    method = method_of(classes=6, distil=False)
    method.begin(Stage(1, 2, tuple("abcdef"), new=(4, 5)))
    assert method.teacher is None
    assert not any(name.startswith("teacher") for name in method.state_dict())


def test_the_detail_branch_trains_the_decoder_and_not_the_transformer():
    method = method_of(rebuilding=1e-9)
    images = torch.rand(4, 1, 8, 8).double()
    _, details = method._drawing(images)
    details.backward()
    assert all(parameter.grad is None for parameter in method.model.parameters())
    assert method.expand.weight.grad.abs().max() > 0
    assert method.draw.weight.grad.abs().max() > 0


def test_what_is_rebuilt_depends_on_what_is_known_alone():
    method = method_of(channels=3).eval()
    images = torch.rand(5, 3, 8, 8).double()
    order = torch.rand(5, 16).argsort(1)[:, :4].sort(1).values
    whole = method.rebuild(images, order)
    keep = torch.zeros(5, 16, dtype=torch.bool).scatter(1, order, True)
    patches = patches_of(images, 4)
    torch.testing.assert_close(patches_of(whole, 4)[keep], patches[keep], rtol=0, atol=0)
    assert whole.min() >= 0
    assert whole.max() <= 1
    patches[~keep] = 0.3
    torch.testing.assert_close(method.rebuild(pixels_of(patches, 3, 8), order), whole)


def test_it_learns_to_draw_what_is_hidden():
    """Images of one grey each, whose hidden part follows from what is seen."""
    method = method_of(hidden=0.5).float()
    optimizer = torch.optim.AdamW(method.parameters(), 5e-3)
    images = torch.rand(64, 1, 1, 1).expand(64, 1, 8, 8)
    labels = (images[:, 0, 0, 0] > 0.5).long()
    for _ in range(150):
        step = method.step(batch_of(images, labels))
        optimizer.zero_grad()
        step.loss.backward()
        optimizer.step()
    order = torch.rand(64, 16).argsort(1)[:, :8].sort(1).values
    error = (method.eval().rebuild(images, order) - images).square().mean()
    assert error < 0.2 * images.var()
    assert step.logs["accuracy"] > 0.8


@pytest.mark.parametrize(
    "options", [{"hidden": 0.0}, {"hidden": 1.0}, {"rebuilding": 0}, {"detail": -1}, {"temperature": 0}, {"ratio": 0}]
)
def test_options_out_of_range(options: dict):
    with pytest.raises(ConfigError, match=next(iter(options))):
        method_of(**options)


@pytest.mark.parametrize("net", [lambda: backbones.ConvNet(1, 8, width=4, depth=2), lambda: backbones.MLP(64)])
def test_a_network_without_tokens_is_refused(net):
    made = net()
    model = Classifier(Normalize([0.5], [0.25]), made, heads.Linear(made.out_features, 2))
    with pytest.raises(ConfigError, match="use backbone vit"):
        MAECIL(model, losses.CrossEntropy(), image_size=8)


def test_it_is_of_those_that_draw():
    assert issubclass(MAECIL, Rebuilding)

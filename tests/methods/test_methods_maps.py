"""A class for every pixel: head, loss, method, and what is refused."""

from __future__ import annotations

import pytest
import torch

from repertoire import losses, recipe
from repertoire.data import load
from repertoire.errors import ConfigError, ShapeError
from repertoire.heads import Dense
from repertoire.losses import CrossEntropy, Focal, LogitsLoss, dense_loss
from repertoire.methods import Supervised

DATA = "shapes:count=60,classes=2,targets=maps"


@pytest.mark.parametrize("loss", [CrossEntropy(), CrossEntropy(reduction="sum"), Focal()])
def test_the_loss_of_maps_is_that_of_their_known_pixels(loss: LogitsLoss):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 4, 5, 6, generator=generator, requires_grad=True)
    maps = torch.randint(-1, 4, (3, 5, 6), generator=generator)
    rows = torch.stack([logits[i, :, y, x] for i in range(3) for y in range(5) for x in range(6) if maps[i, y, x] >= 0])
    classes = torch.stack([maps[i, y, x] for i in range(3) for y in range(5) for x in range(6) if maps[i, y, x] >= 0])
    torch.testing.assert_close(dense_loss(loss, logits, maps), loss(rows, classes))


def test_maps_without_a_class_give_zero():
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = dense_loss(CrossEntropy(), logits, torch.full((2, 4, 4), -1))
    loss.backward()
    assert loss == 0
    assert not logits.grad.any()


def test_shapes_and_losses_that_do_not_fit_are_refused():
    logits = torch.randn(2, 3, 4, 4)
    with pytest.raises(ShapeError, match=r"maps must be int64 \[2, 4, 4\]"):
        dense_loss(CrossEntropy(), logits, torch.zeros(2, 4, 5, dtype=torch.long))
    with pytest.raises(ShapeError, match="logits must be"):
        dense_loss(CrossEntropy(), logits[0], torch.zeros(2, 4, 4, dtype=torch.long))
    with pytest.raises(ConfigError, match="BCE is for labels"):
        dense_loss(losses.BCE(), logits, torch.zeros(2, 4, 4, dtype=torch.long))
    with pytest.raises(ConfigError, match="reduction"):
        dense_loss(CrossEntropy(reduction="none"), logits, torch.zeros(2, 4, 4, dtype=torch.long))


def test_the_head_is_linear_at_every_place_and_as_large_as_the_target():
    head = Dense(6, 3, image_size=8)
    maps = torch.randn(2, 6, 4, 5)
    everywhere = head(maps, torch.zeros(2, 4, 5, dtype=torch.long))
    torch.testing.assert_close(everywhere[:, :, 1, 2], head.linear(maps[:, :, 1, 2]))
    assert head(maps).shape == (2, 3, 8, 8)
    assert head(maps, torch.zeros(2, 16, 20, dtype=torch.long)).shape == (2, 3, 16, 20)
    with pytest.raises(ShapeError, match="maps must be"):
        head(torch.randn(2, 5, 4, 4))


def config(**options):
    return recipe.make_config(data=DATA, backbone="convnet:width=4,depth=2", device="cpu", **options)


def test_a_recipe_for_maps_learns():
    torch.manual_seed(0)
    splits = load(DATA)
    built = recipe.build(config(), splits)
    assert isinstance(built.method, Supervised)
    assert (built.config.head, built.config.loss) == ("dense", "cross-entropy")
    batch = next(built.loader().epoch(0))
    optimizer = torch.optim.Adam(built.method.parameters(), 0.03)
    steps = []
    for _ in range(12):
        step = built.method.step(batch)
        optimizer.zero_grad()
        step.loss.backward()
        optimizer.step()
        steps.append(step.loss.item())
    assert steps[-1] < 0.8 * steps[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "simclr"}, "a class for every pixel"),
        ({"method": "fixmatch"}, "a class for every pixel"),
        ({"head": "linear"}, "use --head dense|head='dense'"),
        ({"loss": "bce"}, "this data has a class for every pixel"),
        ({"rule": "local:blocks=2"}, "makes a step of its own"),
        ({"accumulate": 2}, "accumulate"),
        ({"method": "supervised:mix=mixup"}, "mix=none"),
    ],
)
def test_what_has_no_meaning_for_maps_is_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        recipe.build(config(**options), load(DATA))


def test_a_dense_head_is_refused_where_targets_are_classes():
    data = "shapes:count=60,classes=2"
    with pytest.raises(ConfigError, match="no maps of classes"):
        recipe.build(
            recipe.make_config(data=data, backbone="convnet:width=4,depth=2", head="dense", device="cpu"), load(data)
        )


@pytest.mark.parametrize("name", ["focal", "encouraging", "squentropy", "ldam", "balanced-softmax", "logit-adjusted"])
def test_losses_on_classes_train_maps(name):
    splits = load(DATA)
    built = recipe.build(config(loss=name), splits)
    assert built.method.step(next(built.loader().epoch(0))).loss.isfinite()

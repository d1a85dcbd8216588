"""What the method "embedding" tells a loss on views, beside the views."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from repertoire import backbones, heads, losses
from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.losses import NTXent, TiCo, ViewsLoss
from repertoire.methods import Classifier, Embedding, Normalize


def classifier() -> Classifier:
    net = backbones.ConvNet(in_channels=1, image_size=8, width=4, depth=2)
    return Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 3))


def batch(views: int = 2) -> Batch:
    images = tuple(torch.rand(5, 1, 8, 8) for _ in range(views))
    return Batch(images, torch.arange(5) % 3, torch.tensor([7, 3, 11, 0, 5]))


class Curious(ViewsLoss):
    """Remembers what it was told."""

    wants = ("index",)

    def __init__(self, *wants: str) -> None:
        super().__init__()
        self.wants = wants or self.wants
        self.told: dict[str, Any] = {}

    def prepare(self, dimensions: int) -> None:
        self.told["dimensions"] = dimensions

    def forward(self, *views: Tensor, **known: Tensor) -> Tensor:
        self.told.update(known)
        return losses.nt_xent_loss(*views)


def test_a_loss_is_told_what_it_wants():
    loss = Curious()
    method = Embedding(classifier(), loss, dimensions=12)
    assert loss.told == {"dimensions": 12}
    images = batch()
    method.step(images)
    assert torch.equal(loss.told["index"], images.index)


def test_what_images_do_not_come_with_is_refused_when_the_method_is_built():
    with pytest.raises(ConfigError, match="loss Curious needs the weather of every sample"):
        Embedding(classifier(), Curious("index", "weather"))
    # What an augmentation can tell is asked of the data as a field.
    method = Embedding(classifier(), Curious("index", "transformation"))
    assert method.needs.fields == {"transformation"}


def test_state_of_the_width_of_the_embeddings_is_there_before_the_first_step():
    method = Embedding(classifier(), TiCo(), dimensions=12)
    assert method.state_dict()["loss.covariance"].shape == (12, 12)
    method.step(batch())
    assert not method.state_dict()["loss.covariance"].any()
    method.after_update()
    assert method.state_dict()["loss.covariance"].any()


def test_a_loss_that_is_added_to_another_passes_on_what_is_known():
    base = Curious()
    loss = losses.WassersteinUniformity(base)
    Embedding(classifier(), loss, dimensions=12).step(batch())
    assert base.told.keys() == {"dimensions", "index"}
    assert losses.Trajectory(NTXent()).views == 3

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from repertoire import heads, losses, registry
from repertoire.data import Batch
from repertoire.errors import ConfigError, DataError
from repertoire.local import Local
from repertoire.methods import Classifier, Guided, Normalize, Supervised
from repertoire.train import fit


def classifier(name: str = "convnet") -> Classifier:
    torch.manual_seed(0)
    spec = {"convnet": "convnet:width=4,depth=3", "vit": "vit:patch=4,dim=12,depth=2,heads=2,pooling=cls"}[name]
    net = registry.build("backbones", spec, in_channels=3, image_size=16)
    return Classifier(Normalize([0.5] * 3, [0.25] * 3), net, heads.Linear(net.out_features, 3))


def batch(count: int = 6) -> Batch:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(count, 3, 16, 16, generator=generator)
    return Batch((images,), torch.arange(count) % 3, torch.arange(count), {"mask": ((images[:, 0] > 0.7).float(),)})


@pytest.mark.parametrize("name", ["convnet", "vit"])
@pytest.mark.parametrize("stage", [1, 2, None])
def test_the_loss_is_that_of_supervised_and_the_alignment_of_the_stage(name, stage):
    model, given = classifier(name).eval(), batch()
    step = Guided(model, losses.CrossEntropy(), weight=0.5, stage=stage).step(given)
    plain = Supervised(model, losses.CrossEntropy()).step(given)
    x = model.normalize(given.images)
    net = model.backbone
    for block in net.blocks[: net.stage_ends[(stage or len(net.stage_ends)) - 1] + 1]:
        x = block(x)
    attention = net.grid(x).mean(1)
    heat = F.adaptive_avg_pool2d(given.fields["mask"][0], tuple(attention.shape[1:]))
    alignment = 1 - F.cosine_similarity(attention.flatten(1), heat.flatten(1)).mean()
    torch.testing.assert_close(step.loss, plain.loss + 0.5 * alignment)
    torch.testing.assert_close(step.logs["alignment_loss"], alignment.detach())
    assert torch.equal(step.logs["accuracy"], plain.logs["accuracy"])


def test_attention_moves_onto_the_object():
    model, given = classifier(), batch(24)
    method = Guided(model, losses.CrossEntropy())
    optimizer = torch.optim.Adam(method.parameters(), lr=0.01)
    before = method.step(given).logs["alignment_loss"]
    for _ in range(30):
        optimizer.zero_grad()
        method.step(given).loss.backward()
        optimizer.step()
    assert method.step(given).logs["alignment_loss"] < 0.5 * before


def test_what_is_refused():
    model = classifier()
    with pytest.raises(ConfigError, match="needs the masks"):
        Guided(model, losses.CrossEntropy()).step(Batch(batch().views, batch().targets, batch().index))
    with pytest.raises(ConfigError, match="stage must be from 1 to 3"):
        Guided(model, losses.CrossEntropy(), stage=4)
    with pytest.raises(ConfigError, match="weight must be 0 or more"):
        Guided(model, losses.CrossEntropy(), weight=-1.0)
    with pytest.raises(ConfigError, match="loss on logits"):
        Guided(model, losses.SupCon())
    with pytest.raises(ConfigError, match="rule 'local' cannot train method 'guided'"):
        Local(blocks=2).setup(Guided(model, losses.CrossEntropy()), torch.optim.SGD, example=torch.zeros(2, 3, 16, 16))


def test_a_run_gets_masks_from_data_that_has_them(tmp_path):
    shapes = {"data": "shapes:count=120,classes=3", "size": 16}
    options = {"method": "guided:weight=0.5", "backbone": "convnet:width=4,depth=2", "epochs": 1, "device": "cpu"}
    run = fit(out=tmp_path / "run", augment="crop-flip", accumulate=2, **shapes, **options)
    assert run.history[-1]["train_alignment_loss"] > 0
    with pytest.raises(DataError, match="no object masks"):
        fit("digits", out=tmp_path / "none", **options)

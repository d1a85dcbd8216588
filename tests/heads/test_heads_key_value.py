from __future__ import annotations

import pytest
import torch

from repertoire.backbones import ConvNet
from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.heads import KeyValueBottleneck
from repertoire.losses import CrossEntropy
from repertoire.methods import Classifier, Normalize, Stage, Supervised, prepare_head


def head_of(classes: int = 3, rows: int = 60) -> tuple[KeyValueBottleneck, torch.Tensor]:
    z = torch.randn(rows, 6, generator=torch.Generator().manual_seed(0))
    head = KeyValueBottleneck(6, classes, codebooks=4, keys=7, width=3)
    head.prepare(z)
    with torch.no_grad():
        head.values.normal_(generator=torch.Generator().manual_seed(1))
    return head, z


def test_logits_are_the_mean_of_what_is_stored_under_the_nearest_keys():
    head, z = head_of()
    for row, logits in zip(z[:8].double(), head(z[:8]), strict=True):
        total = torch.zeros(3, dtype=torch.float64)
        for c in range(4):
            distances = (row @ head.projection[c].double() - head.keys[c].double()).square().sum(1)
            total += head.values[:, c, int(distances.argmin())].double()
        torch.testing.assert_close(logits.double(), total / 4, rtol=1e-5, atol=1e-6)


def test_only_fetched_values_have_a_gradient():
    head, z = head_of()
    torch.nn.functional.cross_entropy(head(z[:5]), torch.tensor([0, 1, 2, 0, 1])).backward()
    fetched = torch.zeros(4, 7, dtype=torch.bool)
    for c, index in enumerate(head.fetched(z[:5]).T):
        fetched[c, index] = True
    assert head.values.grad is not None
    assert torch.equal(head.values.grad.any(0), fetched)
    assert not fetched.all(), "some keys are far from five rows"


def test_keys_are_made_once_and_stay_when_classes_are_added():
    head, z = head_of()
    keys, logits = head.keys.clone(), head(z)
    head.prepare(100 * z)
    head.grow(5)
    assert torch.equal(head.keys, keys)
    assert torch.equal(head(z)[:, :3], logits)
    assert not head(z)[:, 3:].any()


def test_the_head_of_a_first_stage_is_prepared_and_what_gets_no_gradient_is_frozen():
    torch.manual_seed(0)
    net = ConvNet(in_channels=1, image_size=8, width=4, depth=1)
    model = Classifier(Normalize([0.5], [0.25]), net, KeyValueBottleneck(net.out_features, 3, codebooks=4, keys=5))
    method = Supervised(model, CrossEntropy())
    images, targets = torch.rand(30, 1, 8, 8), torch.arange(30) % 3
    batch = Batch((images,), targets, torch.arange(30))
    keys = model.head.keys.clone()
    prepare_head(model, Stage(batches=lambda: [batch]))
    assert not torch.equal(model.head.keys, keys)
    assert not any(p.requires_grad for p in net.parameters())
    before = {name: value.clone() for name, value in net.state_dict().items()}
    method.train()
    method.step(batch).loss.backward()
    assert model.head.values.grad is not None
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    keys = model.head.keys.clone()
    prepare_head(model, Stage(index=1, count=2, batches=lambda: [batch]))
    assert torch.equal(model.head.keys, keys)


def test_options_out_of_range():
    with pytest.raises(ConfigError, match="codebooks must be positive"):
        KeyValueBottleneck(4, 2, codebooks=0)

"""AugLocal: which units are copied and how many, against the paper's formulas, and what the copies are."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from repertoire import backbones, heads
from repertoire.errors import ConfigError
from repertoire.local import LocalLearning
from repertoire.local.auxiliaries._auglocal import chosen, depth_at, redraw
from repertoire.methods import Classifier, Normalize


def learner(auxiliary: str, blocks: int | str = 4) -> LocalLearning:
    torch.manual_seed(0)
    net = backbones.ResNet(20, in_channels=3, width=4)
    model = Classifier(Normalize([0.5] * 3, [0.25] * 3), net, heads.Linear(net.out_features, 3))
    return LocalLearning(
        model,
        blocks=blocks,
        auxiliary=auxiliary,
        example=torch.zeros(2, 3, 16, 16),
        optimizer=lambda block: torch.optim.SGD(block.parameters(), lr=0.1),
    )


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 40), st.integers(1, 12), st.data())
def test_units_are_spaced_evenly_and_end_with_the_last(total, depth, data):
    last = data.draw(st.integers(0, total - 2))
    site = SimpleNamespace(unit=last, following=list(range(last + 1, total)))
    found = chosen(site, depth)
    left = total - 1 - last
    expected = [round(last + left / depth * i) for i in range(1, depth + 1)] if depth < left else site.following
    assert found == expected
    assert found[-1] == total - 1
    assert found == sorted(set(found))


def test_depth_falls_like_a_pyramid():
    depths = [depth_at(SimpleNamespace(index=k, count=12), 9, 0.5) for k in range(11)]
    assert depths == [max(1, round(9 * (1 - 0.5 * k / 10) + 0.5 * k / 10)) for k in range(11)]
    assert depths[0] == 9
    assert depths[-1] == 5
    assert [depth_at(SimpleNamespace(index=k, count=12), 9, 0.0) for k in range(11)] == [9] * 11
    assert depth_at(SimpleNamespace(index=10, count=12), 9, 1.0) == 1
    assert depth_at(SimpleNamespace(index=0, count=2), 3, 0.5) == 3


def test_copies_are_fresh_and_of_the_units_own_make():
    found = learner("auglocal:depth=2,pyramid=0")
    units = dict(found.model.backbone.named_modules())
    for network in found.auxiliaries:
        copies = [layer for layer in network.layers if type(layer) is type(units[network.names[0]])]
        assert len(copies) == len(network.names) == 2
        for name, copied in zip(network.names, copies, strict=True):
            for own, other in zip(units[name].parameters(), copied.parameters(), strict=True):
                assert own is not other
                assert own.shape == other.shape
                assert own.dim() == 1 or not torch.equal(own, other)


def test_drawn_anew_weights_are_as_wide_as_they_were():
    torch.manual_seed(0)
    part = nn.Sequential(nn.Conv2d(16, 32, 3), nn.BatchNorm2d(32))
    nn.init.normal_(part[0].weight, 0.0, 0.3)
    nn.init.normal_(part[1].weight)
    part(torch.randn(4, 16, 8, 8))
    before = part[0].weight.clone()
    redraw(part)
    assert float((part[0].weight.std() / before.std()).detach()) == pytest.approx(1, abs=0.05)
    assert not torch.equal(part[0].weight, before)
    assert not part[0].bias.any()
    assert (part[1].weight == 1).all()
    assert not part[1].running_mean.any()


def test_copies_see_no_larger_maps_than_asked_for():
    sizes = []
    found = learner("auglocal:depth=1,size=4", blocks="all")
    for network in found.auxiliaries:
        for layer in network.layers[-1:]:
            layer.register_forward_hook(lambda module, inputs, output: sizes.append(max(inputs[0].shape[2:])))
    found.step(torch.rand(4, 3, 16, 16), torch.tensor([0, 1, 2, 0]))
    assert sizes
    assert max(sizes) <= 4


@pytest.mark.parametrize("options", ["depth=0", "pyramid=1.5", "pyramid=-1", "size=0"])
def test_options_of_no_use(options):
    with pytest.raises(ConfigError, match="auglocal"):
        learner(f"auglocal:{options}")

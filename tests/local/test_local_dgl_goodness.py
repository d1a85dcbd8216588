"""The auxiliary networks of decoupled greedy learning, and the goodness of channels."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire import losses
from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.local import DGL, Goodness, LocalLearning


def sgd(block: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(block.parameters(), lr=0.1)


def convolutions(channels: int, classes: int = 3) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, channels, 3, padding=1), nn.Conv2d(channels, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, classes),
    )  # fmt: skip


def learner_of(spec: str, channels: int = 6, size: int = 16, classes: int = 3) -> LocalLearning:
    example = torch.zeros(2, 2, size, size)
    return LocalLearning(convolutions(channels, classes), 2, spec, sgd, at=("0",), example=example)


@pytest.mark.parametrize(
    ("kind", "size", "inside", "width"),
    [
        ("mlp-sr", 16, (4, 4), 24),
        ("mlp-sr", 5, (2, 2), 24),
        ("mlp-sr", 4, (1, 1), 24),
        ("mlp", 16, None, 24),
        ("cnn", 16, (16, 16), 24),
    ],
)
def test_the_three_kinds_have_the_layers_of_the_paper(kind: str, size: int, inside: tuple[int, int] | None, width: int):
    network = learner_of(f"dgl:kind={kind}", size=size).auxiliaries[0]
    assert isinstance(network, DGL)
    assert network.width == width
    kernels = [m.kernel_size for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert kernels == {"mlp-sr": [(1, 1)] * 3, "mlp": [], "cnn": [(3, 3)] * 2}[kind]
    assert sum(isinstance(m, nn.Linear) for m in network.perceptron) == (0 if kind == "cnn" else 3)
    seen: list[tuple[int, ...]] = []
    network.layers.register_forward_pre_hook(lambda module, args: seen.append(tuple(args[0].shape[2:])))
    assert network(torch.rand(4, 6, size, size)).shape == (4, 3)
    if inside is not None:
        assert seen == [inside]


def test_the_perceptron_of_a_wide_block_is_no_wider_than_the_papers():
    assert learner_of("dgl", channels=600).auxiliaries[0].width == 2048
    assert learner_of("dgl:width=50", channels=600).auxiliaries[0].width == 50
    with pytest.raises(ConfigError, match="width is 0"):
        learner_of("dgl:width=0")


def reference(network: Goodness, h: Tensor, classes: int) -> list[list[float]]:
    """Goodness, channel by channel, of normalised activations."""
    z = network.norm(network.spread(h)).detach()
    channels = z.shape[1]
    rows = []
    for sample in z:
        sums, sizes = [0.0] * classes, [0] * classes
        for c in range(channels):
            k = c * classes // channels
            sums[k] += float(sample[c].square().mean())
            sizes[k] += 1
        rows.append([total / size for total, size in zip(sums, sizes, strict=True)])
    return rows


@given(st.integers(1, 9), st.integers(1, 5), st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_goodness_is_the_mean_square_of_a_classs_channels(channels: int, classes: int, seed: int):
    network = learner_of("goodness", channels=channels, size=5, classes=classes).auxiliaries[0]
    assert isinstance(network, Goodness)
    h = torch.randn(4, channels, 5, 5, generator=torch.Generator().manual_seed(seed))
    expected = torch.tensor(reference(network, h, classes))
    torch.testing.assert_close(network(h), expected, rtol=1e-4, atol=1e-5)
    y = torch.arange(4) % classes
    step = network.objective(h, Batch((torch.zeros(4, 2, 5, 5),), y, torch.arange(4)), F.cross_entropy)
    torch.testing.assert_close(step.loss, F.cross_entropy(expected, y), rtol=1e-4, atol=1e-5)


def test_every_class_has_a_channel():
    for channels, classes in ((3, 3), (10, 3), (2, 3), (16, 10)):
        groups = learner_of("goodness", channels=channels, classes=classes).auxiliaries[0].classifier.groups
        counts = torch.bincount(groups, minlength=classes)
        assert len(counts) == classes
        assert counts.min() >= 1
        assert counts.max() - counts.min() <= 1


def test_goodness_keeps_to_labels():
    network = learner_of("goodness").auxiliaries[0]
    h, view = torch.randn(4, 6, 5, 5), torch.zeros(4, 2, 5, 5)
    labels = torch.tensor([0, -1, 2, -1])
    step = network.objective(h, Batch((view,), labels, torch.arange(4)), losses.SupCon())
    torch.testing.assert_close(step.loss, F.cross_entropy(network(h)[[0, 2]], labels[[0, 2]]))
    with pytest.raises(ConfigError, match="'goodness' learns from labels, and the loss AlignUniform"):
        network.check_loss(losses.AlignUniform())

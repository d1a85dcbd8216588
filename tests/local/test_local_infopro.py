"""InfoPro: the two terms, their weights from block to block, and the image that is to be rebuilt."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire import losses
from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.local import InfoPro, LocalLearning


def sgd(block: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(block.parameters(), lr=0.1)


def convolutions(depth: int = 5) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Conv2d(4 if i else 3, 4, 3, padding=1), nn.ReLU()) for i in range(depth)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))


def images(size: int = 12) -> tuple[Tensor, Tensor]:
    return torch.rand(6, 3, size, size), torch.arange(6) % 3


def only(learner: LocalLearning, index: int = 0) -> InfoPro:
    found = learner.auxiliaries[index]
    assert isinstance(found, InfoPro)
    return found


def test_the_objective_is_the_weighted_sum():
    x, y = images()
    learner = LocalLearning(convolutions(), 2, "infopro:reconstruction=(3,1),supervised=(2,1)", sgd, example=x)
    network = only(learner)
    h = learner.trainer.blocks[0].run(x)
    step = network.objective(h, Batch((x,), y, torch.arange(6)), F.cross_entropy)
    enlarged = F.interpolate(h, (12, 12), mode="bilinear", align_corners=True)
    rebuilt = torch.sigmoid(network.decoder[1:](enlarged))
    expected = 3 * F.binary_cross_entropy(rebuilt, x) + 2 * F.cross_entropy(network(h), y)
    torch.testing.assert_close(step.loss, expected)
    torch.testing.assert_close(step.logs["reconstruction_loss"], F.binary_cross_entropy(rebuilt, x))


@pytest.mark.parametrize(("patches", "side"), [(2, 12), (2, 11), (3, 11)])
def test_patches_are_decoded_apart(patches: int, side: int):
    """Each decoder makes its part of the image of its part of the maps, and of nothing else."""
    x, y = images(side)
    torch.manual_seed(1)
    spec = f"infopro:reconstruction=(3,1),supervised=(0,0),patches={patches}"
    network = only(LocalLearning(convolutions(), 2, spec, sgd, example=x))
    h = torch.randn(6, 4, side, side, requires_grad=True)
    step = network.objective(h, Batch((x,), y, torch.arange(6)), F.cross_entropy)
    bounds = [0]
    for part in range(patches):
        bounds.append(bounds[-1] + side // patches + (part < side % patches))
    assert bounds[-1] == side
    total = 0.0
    for row in range(patches):
        for column in range(patches):
            place = (..., slice(bounds[row], bounds[row + 1]), slice(bounds[column], bounds[column + 1]))
            decoder = network.decoder.decoders[patches * row + column]
            part = F.interpolate(h[place], x[place].shape[2:], mode="bilinear", align_corners=True)
            error = F.binary_cross_entropy(torch.sigmoid(decoder[1:](part)), x[place], reduction="none")
            total = total + error.sum()
    torch.testing.assert_close(step.loss, 3 * total / x.numel())
    corner = network.reconstruct(h)[:, :, : bounds[1], : bounds[1]].sum()
    (reach,) = torch.autograd.grad(corner, h)
    assert reach[..., : bounds[1], : bounds[1]].abs().sum() > 0
    assert reach[..., bounds[1] :, :].abs().sum() == reach[..., bounds[1] :].abs().sum() == 0


def test_patches_of_what_has_none_are_refused():
    x, _ = images(4)
    with pytest.raises(ConfigError, match="patches is 0; expected 1 or more"):
        LocalLearning(convolutions(), 2, "infopro:patches=0", sgd, example=x)
    with pytest.raises(ConfigError, match="cannot be cut into 5 x 5 parts; use patches=1"):
        LocalLearning(convolutions(), 2, "infopro:patches=5", sgd, example=x)
    net = nn.Sequential(nn.Linear(7, 9), nn.ReLU(), nn.Linear(9, 3))
    with pytest.raises(ConfigError, match="cannot be cut into 2 x 2 parts"):
        LocalLearning(net, 2, "infopro:patches=2", sgd, example=torch.zeros(2, 7))


def test_the_weights_change_linearly_from_the_first_block_to_the_last_but_one():
    x, _ = images()
    learner = LocalLearning(convolutions(), "all", "infopro:reconstruction=(6,0),supervised=(0,3)", sgd, example=x)
    networks = [only(learner, i) for i in range(5)]
    assert [n.reconstruction for n in networks] == pytest.approx([6, 4.5, 3, 1.5, 0])
    assert [n.supervised for n in networks] == pytest.approx([0, 0.75, 1.5, 2.25, 3])


def test_a_contrastive_term_takes_the_place_of_a_loss_on_logits_only():
    x, y = images()
    learner = LocalLearning(
        convolutions(), 2, "infopro:contrast=true,reconstruction=(0,0),supervised=(1,1)", sgd, example=x
    )
    network = only(learner)
    h = learner.trainer.blocks[0].run(x).detach().requires_grad_()
    batch = Batch((x,), y, torch.arange(6))
    step = network.objective(h, batch, F.cross_entropy)
    features = network.embed(h)
    torch.testing.assert_close(step.logs["loss"], losses.SupCon(temperature=0.07)(features, y))
    expected = torch.autograd.grad(losses.SupCon(temperature=0.07)(features, y), h)[0]
    torch.testing.assert_close(torch.autograd.grad(step.loss, h)[0], expected)
    own = network.objective(h, batch, losses.SupCon(temperature=1.0))
    torch.testing.assert_close(own.logs["loss"], losses.SupCon(temperature=1.0)(network.embed(h), y))


def test_every_view_is_rebuilt_and_large_images_are_averaged_down():
    x, y = images(16)
    views = (x, 1 - x)
    learner = LocalLearning(convolutions(), 2, "infopro:size=8,error=mse", sgd, example=x)
    network = only(learner)
    h = learner.trainer.blocks[0].run(torch.cat(views))
    step = network.objective(h, Batch(views, y, torch.arange(6)), F.cross_entropy)
    wanted = torch.cat([F.avg_pool2d(x, 2), 1 - F.avg_pool2d(x, 2)])
    assert network.reconstruct(h).shape == wanted.shape == (12, 3, 8, 8)
    torch.testing.assert_close(step.logs["reconstruction_loss"], F.mse_loss(network.reconstruct(h), wanted))


def test_rebuilding_gets_better():
    x, y = images()
    learner = LocalLearning(
        convolutions(), 2, "infopro", lambda b: torch.optim.Adam(b.parameters(), lr=0.01), example=x
    )
    values = [float(learner.step(x, y)["block1_reconstruction_loss"]) for _ in range(30)]
    assert values[-1] < values[0] - 0.01


def test_vectors_have_a_decoder_too():
    x, y = torch.rand(6, 10), torch.arange(6) % 3
    net = nn.Sequential(nn.Linear(10, 4), nn.ReLU(), nn.Linear(4, 3))
    learner = LocalLearning(net, 2, "infopro", sgd, example=x)
    assert "block1_reconstruction_loss" in learner.step(x, y)
    assert only(learner).reconstruct(net[0](x)).shape == x.shape


def test_what_cannot_be_is_refused_before_weights_change():
    x, y = images()
    for options, message in (
        ("reconstruction=(1,-1)", "reconstruction is"),
        ("size=0", "size is 0"),
        ("error=mae", "'bce' or 'mse'"),
    ):
        with pytest.raises(ConfigError, match=message):
            LocalLearning(convolutions(), 2, f"infopro:{options}", sgd, example=x)
    net = convolutions()
    learner = LocalLearning(net, 2, "infopro", sgd, example=x)
    before = [p.detach().clone() for p in net.parameters()]
    with pytest.raises(ConfigError, match=r"values from -1 to .* use infopro:error=mse"):
        learner.step(torch.where(x == x.max(), -1.0, x), y)
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))

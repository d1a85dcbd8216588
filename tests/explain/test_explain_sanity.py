from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from repertoire.errors import ConfigError, ShapeError
from repertoire.explain import Explainer, GradCAM, class_sensitivity, max_sensitivity, randomization_check, randomized


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip


class Brightness(Explainer):
    """Shows the image and asks the network nothing."""

    def _explain(self, model: nn.Module, inputs: Tensor, targets: Tensor | int | None) -> Tensor:
        count = targets.shape[1] if isinstance(targets, Tensor) and targets.ndim == 2 else 1
        return inputs.mean(1).expand(count, -1, -1, -1)


class Weights(Explainer):
    """Shows the weights of the last layer: its map is another one once they are, and does not change before."""

    def _explain(self, model: nn.Module, inputs: Tensor, targets: Tensor | int | None) -> Tensor:
        assert isinstance(targets, Tensor)
        return model[-1].weight[targets].abs().view(1, len(inputs), 2, 4)


def test_a_picture_of_the_image_survives_and_grad_cam_does_not():
    model, images = network(), torch.rand(6, 3, 16, 16)
    before = copy.deepcopy(model.state_dict())
    image = randomization_check(Brightness(), model, images)
    assert image.layers == ("7", "3", "1", "0")
    torch.testing.assert_close(image.rank_correlation, torch.ones(4, 6))
    torch.testing.assert_close(image.similarity, torch.ones(4, 6))
    cam = randomization_check(GradCAM(), model, images, mode="all")
    assert cam.layers == ("all",)
    assert cam.rank_correlation.abs().mean() < 0.9
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_cascade_adds_layers_and_independent_takes_one_at_a_time():
    model, images, targets = network(), torch.rand(2, 3, 8, 8), torch.tensor([0, 3])
    cascade = randomization_check(Weights(), model, images, targets).rank_correlation
    alone = randomization_check(Weights(), model, images, targets, mode="independent").rank_correlation
    assert (cascade[0] < 0.99).all()
    torch.testing.assert_close(cascade, cascade[:1].expand(4, 2))
    torch.testing.assert_close(alone[0], cascade[0])
    torch.testing.assert_close(alone[1:], torch.ones(3, 2))


def test_an_explainer_that_holds_a_module_looks_at_the_copy():
    model = network()
    by_module, by_name = GradCAM(layer=model[3]), GradCAM(layer="3")
    images = torch.rand(3, 3, 16, 16)
    for mode in ("cascade", "all"):
        found = randomization_check(by_module, model, images, mode=mode)
        torch.testing.assert_close(found[1:], randomization_check(by_name, model, images, mode=mode)[1:])


def test_the_predicted_class_is_that_of_the_trained_network():
    seen = []

    class Noting(Brightness):
        def _explain(self, model, inputs, targets):
            seen.append(targets.tolist())
            return super()._explain(model, inputs, targets)

    model, images = network().eval(), torch.rand(4, 3, 8, 8)
    randomization_check(Noting(), model, images)
    assert seen == [model(images).argmax(1).tolist()] * 5


def test_randomized_is_a_fresh_copy_and_repeats():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.arange(50.0))
            self.net = network()
            self.net(torch.rand(4, 3, 8, 8))  # statistics

    model = Own()
    state = torch.random.get_rng_state()
    one, two, other = randomized(model, seed=1), randomized(model, seed=1), randomized(model, seed=2)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.testing.assert_close(one.state_dict(), two.state_dict(), rtol=0, atol=0)
    assert not torch.equal(one.net[0].weight, other.net[0].weight)
    assert not torch.equal(one.table, model.table)
    assert one.table.sort().values.tolist() == model.table.tolist()
    assert one.net[1].running_mean.abs().max() == 0
    assert model.net[1].running_mean.abs().max() > 0


def test_class_sensitivity_of_a_map_without_classes_is_one():
    model, images = network(), torch.rand(5, 3, 16, 16)
    torch.testing.assert_close(class_sensitivity(Brightness(), model, images), torch.ones(5))
    assert (class_sensitivity(GradCAM(), model, images) < 0.999).any()


def test_bad_input():
    with pytest.raises(ConfigError, match="mode must be"):
        randomization_check(GradCAM(), network(), torch.rand(1, 3, 8, 8), mode="backwards")
    with pytest.raises(ConfigError, match="no weights"):
        randomization_check(Brightness(), nn.Flatten(), torch.rand(1, 3, 8, 8))
    with pytest.raises(ShapeError, match="one class"):
        class_sensitivity(Brightness(), nn.Sequential(nn.Flatten(), nn.Linear(192, 1)), torch.rand(1, 3, 8, 8))


class Pixels(Explainer):
    """The image itself, or nothing."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__(normalize=False)
        self.scale = scale

    def _explain(self, model, inputs, targets):
        return self.scale * inputs.mean(1)[None]


def test_max_sensitivity_is_the_largest_relative_change():
    """Of a map that is the image, the norm of the largest change over that of the image."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    x = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0)) + 1
    found = max_sensitivity(Pixels(), net, x, radius=0.1, samples=5, seed=3)
    generator = torch.Generator().manual_seed(3)
    changes = [0.1 * (2 * torch.rand(1, 4, 4, generator=generator) - 1) for _ in range(5)]
    largest = max(float(change.norm()) for change in changes)
    torch.testing.assert_close(found, largest / x.flatten(1).norm(dim=1))
    assert not max_sensitivity(Pixels(0.0), net, x).any()
    with pytest.raises(ConfigError, match="radius"):
        max_sensitivity(Pixels(), net, x, radius=0.0)

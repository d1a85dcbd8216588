"""Landscapes and directions, beside the loss at weights that were set one by one."""

from __future__ import annotations

import itertools
import math
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.data import Batch
from repertoire.diagnostics import (
    Landscape,
    landscape_svg,
    loss_landscape,
    random_directions,
    trajectory_directions,
)
from repertoire.errors import ConfigError, DataError, NonFiniteLoss, ShapeError, UnknownName


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(4 * 16, 5)
    )
    model[1].running_mean.normal_()
    return model.eval()


def perceptron(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


def images(sizes: tuple[int, ...] = (70, 9), seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(n, 3, 6, 6, generator=generator), torch.randint(0, 5, (n,), generator=generator)) for n in sizes
    ]


def rows(seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(20, 4, generator=generator), torch.randint(0, 3, (20,), generator=generator))]


def reference(model: nn.Module, data: list[tuple[Tensor, Tensor]], change: dict[str, Tensor], train: bool) -> float:
    """The loss after adding a change to the weights, for all samples of each batch at once."""
    weights = {name: p.detach() + change.get(name, 0) for name, p in model.named_parameters()}
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    if train:
        model[1].train()
    total = 0.0
    for x, y in data:
        with torch.no_grad():
            total += float(F.cross_entropy(torch.func.functional_call(model, {**buffers, **weights}, (x,)), y)) * len(x)
    model.eval()
    return total / sum(len(x) for x, _ in data)


@pytest.mark.parametrize("options", [{}, {"workers": 1}, {"workers": 3}, {"together": 5}, {"batchnorm": "batch"}])
def test_the_plane_is_the_loss_at_each_point(options):
    model, data = network(), images()
    first, second = random_directions(model, 2, seed=3)
    steps = [-1.0, 0.0, 0.3]
    found = loss_landscape(model, data, [first, second], x=steps, y=[0.5, 0.0], **options)
    assert found.loss.shape == (2, 3)
    for (i, b), (j, a) in itertools.product(enumerate([0.5, 0.0]), enumerate(steps)):
        change = {name: a * first[name] + b * second[name] for name in first}
        expected = reference(model, data, change, "batchnorm" in options)
        assert float(found.loss[i, j]) == pytest.approx(expected, rel=1e-4), (a, b)
    assert found.centre == float(found.loss[1, 1])


def test_a_line_and_its_steps():
    model, data = perceptron(), rows()
    way = random_directions(model, 1)
    found = loss_landscape(model, data, way, x=5, span=2.0)
    assert found.y is None
    assert found.x.tolist() == [-2.0, -1.0, 0.0, 1.0, 2.0]
    assert float(found.loss[2]) == found.centre
    assert found.rise == pytest.approx(float(found.loss.mean()) - found.centre)
    even = loss_landscape(model, data, way, x=4, span=2.0)
    assert even.centre == found.centre
    assert loss_landscape(model, data, x=2).loss.shape == (2, 2)


def test_rescaling_a_network_of_rectifiers_changes_plain_directions_and_not_filter_normalised_ones():
    model, data = perceptron(), rows()
    rises = {}
    for normalise in ("filter", "none"):
        before = loss_landscape(model, data, random_directions(model, 1, normalise=normalise), x=9).loss
        scaled = perceptron()
        with torch.no_grad():
            scaled[0].weight.mul_(10)
            scaled[0].bias.mul_(10)
            scaled[2].weight.div_(10)
        after = loss_landscape(scaled, data, random_directions(scaled, 1, normalise=normalise), x=9).loss
        rises[normalise] = float((before - after).abs().max())
    assert rises["filter"] < 1e-4 < 0.1 < rises["none"]


def test_directions_are_as_long_as_the_weights():
    model = network()
    (filters,), (layers,), (plain,) = (
        random_directions(model, 1, normalise=kind, seed=1) for kind in ("filter", "layer", "none")
    )
    weight = model[0].weight
    torch.testing.assert_close(filters["0.weight"].flatten(1).norm(dim=1), weight.flatten(1).norm(dim=1).detach())
    torch.testing.assert_close(layers["0.weight"].norm(), weight.norm().detach())
    torch.testing.assert_close(F.cosine_similarity(layers["0.weight"].flatten(), plain["0.weight"].flatten(), 0),
                               torch.tensor(1.0))  # fmt: skip
    assert not any(filters[name].any() for name in ("0.bias", "1.weight", "1.bias", "5.bias"))
    moved = random_directions(model, 1, vectors="move", seed=1)[0]
    assert torch.equal(moved["1.weight"], model[1].weight.detach())
    assert torch.equal(moved["0.weight"], filters["0.weight"])
    assert torch.equal(random_directions(model, 3, seed=1)[0]["0.weight"], filters["0.weight"])


def test_a_filter_of_zeros_does_not_move():
    model = perceptron()
    with torch.no_grad():
        model[0].weight[2] = 0
    assert not random_directions(model, 1)[0]["0.weight"][2].any()


def test_the_plane_of_training_is_that_of_the_principal_components():
    model = perceptron()
    generator = torch.Generator().manual_seed(0)
    states, final = [], {n: p.detach().clone() for n, p in model.named_parameters()}
    for _ in range(6):
        states.append({n: p + torch.randn(p.shape, generator=generator) for n, p in final.items()})
    found = trajectory_directions(model, states, vectors="move")
    matrix = torch.stack([torch.cat([(s[n] - final[n]).flatten() for n in final]) for s in states])
    u, s, _ = torch.linalg.svd(matrix - matrix.mean(0), full_matrices=False)
    assert found.explained == pytest.approx(((s**2) / (s**2).sum())[:2].tolist(), rel=1e-4)
    centred = found.coordinates - found.coordinates.mean(0)
    torch.testing.assert_close(centred.abs(), (u * s)[:, :2].abs().double(), rtol=1e-3, atol=1e-4)
    first, second = (torch.cat([d[n].flatten() for n in final]) for d in found.directions)
    assert float(first @ first) == pytest.approx(1.0, rel=1e-5)
    assert abs(float(first @ second)) < 1e-5
    kept = trajectory_directions(model, states)
    assert not kept.directions[0]["0.bias"].any()
    loss_landscape(model, rows(), kept.directions, x=3)


def test_the_model_is_left_as_it_was_also_by_an_error():
    model = network().train()
    model[3].eval()
    model[5].weight.grad = torch.ones_like(model[5].weight)
    model[0].bias.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    threads = torch.get_num_threads()
    loss_landscape(model, images(), x=3, batchnorm="batch", workers=2)

    def fails(outputs: Tensor, targets: Tensor) -> Tensor:
        raise RuntimeError("stop")

    for together in (1, 4):
        with pytest.raises(RuntimeError, match="stop"):
            loss_landscape(model, images(), loss=fails, x=3, together=together)
    assert torch.get_num_threads() == threads
    assert [m.training for m in model] == [True, True, True, False, True, True]
    assert not model[0].bias.requires_grad
    assert bool((model[5].weight.grad == 1).all())
    assert model[0].weight.grad is None
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_frozen_parameters_stay():
    model = perceptron()
    model[0].requires_grad_(False)
    assert set(random_directions(model, 1)[0]) == {"2.weight", "2.bias"}


def test_batches_of_the_loader_and_iterators():
    model, data = network(), images((8, 8))
    expected = loss_landscape(model, data, x=3).loss
    given = (Batch((x,), y, torch.arange(len(y))) for x, y in data)
    torch.testing.assert_close(loss_landscape(model, given, loss=F.cross_entropy, x=3).loss, expected)


def test_losses_that_overflow_far_out_are_kept_and_in_the_centre_refused():
    model, data = perceptron(), rows()
    way = {"2.weight": torch.full((3, 6), 1e20)}
    found = loss_landscape(model, data, [way], lambda a, b: a.square().mean(), x=[-1e10, 0.0, 1e10])
    assert found.loss.isfinite().tolist() == [False, True, False]
    assert landscape_svg(found)
    with torch.no_grad():
        model[0].bias[0] = math.nan
        model[2].weight[:, 0] = 1
    for together in (1, 4):
        with pytest.raises(NonFiniteLoss, match="loss at the weights is nan"):
            loss_landscape(model, data, x=3, together=together)


def test_bad_input():
    model, data = perceptron(), rows()
    way = random_directions(model, 1)[0]
    calls = {
        "one .a line. or two": ([way] * 3, {}),
        "batchnorm": (None, {"batchnorm": "none"}),
        "at a time": (None, {"batchnorm": "batch", "together": 2}),
        "at least 1": (None, {"together": 0}),
        "span": (None, {"span": 0.0}),
        "at least 2 steps": (None, {"x": 1}),
        "finite steps": (None, {"y": [math.inf]}),
        "at least one": (None, {"x": []}),
    }
    for message, (ways, options) in calls.items():
        with pytest.raises(ConfigError, match=message):
            loss_landscape(model, data, ways, **options)
    with pytest.raises(UnknownName, match=r"0\.weights"):
        loss_landscape(model, data, [{"0.weights": torch.ones(1)}])
    with pytest.raises(ShapeError, match=r"\[2\]"):
        loss_landscape(model, data, [{"0.weight": torch.ones(2)}])
    with pytest.raises(DataError, match="not finite"):
        loss_landscape(model, data, [{"0.bias": torch.full((6,), math.nan)}])
    with pytest.raises(DataError, match="zero everywhere"):
        loss_landscape(model, data, [{}])
    with pytest.raises(DataError, match="batches is empty"):
        loss_landscape(model, [])
    with pytest.raises(ConfigError, match="no parameter"):
        loss_landscape(nn.ReLU(), data)
    for options in ({"count": 0}, {"normalise": "filters"}, {"vectors": "stay"}):
        with pytest.raises(ConfigError):
            random_directions(model, **options)
    state = model.state_dict()
    for states, message in (([state] * 2, "three"), ([state] * 3, "same weights"), ([{}] * 3, "no parameter")):
        with pytest.raises(DataError, match=message):
            trajectory_directions(model, states)
    with pytest.raises(ShapeError, match="checkpoint 0"):
        trajectory_directions(model, [{**state, "0.weight": torch.ones(1)}] * 3)


def test_pictures_are_svg_and_the_same_each_time():
    x = torch.linspace(-1, 1, 7, dtype=torch.float64)
    bowl = 0.01 + x[:, None] ** 2 + 3 * x**2
    bowl[0, 0] = math.inf
    plane = Landscape(x, x, bowl, 0.01)
    text = landscape_svg(plane, path=torch.tensor([[-1.0, 0.5], [0.0, 0.0]]))
    assert text == landscape_svg(plane, path=torch.tensor([[-1.0, 0.5], [0.0, 0.0]]))
    assert ElementTree.fromstring(text).tag.endswith("svg")
    assert landscape_svg(Landscape(x, x, torch.ones(7, 7, dtype=torch.float64), 1.0))
    assert landscape_svg(Landscape(x, None, -x, 0.0))
    with pytest.raises(DataError, match="no loss"):
        landscape_svg(Landscape(x, None, x * math.nan, 0.0))
    for bad in (torch.ones(2), torch.ones(2, 3)):
        with pytest.raises(ShapeError, match="path"):
            landscape_svg(plane, path=bad)
    with pytest.raises(ShapeError, match="path"):
        landscape_svg(Landscape(x, None, x, 0.0), path=torch.ones(2, 2))


def test_the_colours_rise_evenly_in_grey():
    import matplotlib

    colours = matplotlib.colormaps["cividis"](np.linspace(0, 1, 64))[:, :3]
    grey = colours @ [0.299, 0.587, 0.114]
    assert (np.diff(grey) > 0).all()

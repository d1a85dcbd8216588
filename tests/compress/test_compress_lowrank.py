from __future__ import annotations

import copy

import pytest
import torch
from nets import batches, images, network
from torch import nn

from repertoire.compress import group_lasso, low_rank, lowrank, sampled_rank, truncate
from repertoire.compress._changed import answers_changed, some_images
from repertoire.compress._factored import factored_layers
from repertoire.data import Batch
from repertoire.errors import CheckpointError, ConfigError
from repertoire.weights import Stored


def test_at_full_rank_nothing_changes():
    model = network()
    copied = low_rank(model)
    # The convolution in groups stays what it is.
    assert list(factored_layers(copied)) == ["0", "6", "11"]
    assert [layer.rank for layer in factored_layers(copied).values()] == [8, 16, 3]
    with torch.no_grad():
        torch.testing.assert_close(copied(images()), model(images()), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(copied[6].weight(), model[6].weight.flatten(1))


@pytest.mark.parametrize("padding", [0, (1, 2), "same"])
@pytest.mark.parametrize("mode", ["zeros", "reflect"])
def test_convolutions_of_every_kind(padding, mode):
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 5, (3, 2), padding=padding, padding_mode=mode, dilation=(1, 2))
    x = torch.rand(2, 3, 9, 8)
    torch.testing.assert_close(low_rank(conv)(x), conv(x), rtol=1e-4, atol=1e-5)
    strided = nn.Conv2d(3, 5, 3, stride=(2, 1), bias=False)
    torch.testing.assert_close(low_rank(strided)(x), strided(x), rtol=1e-4, atol=1e-5)


def test_a_sampled_rank_is_that_of_its_first_columns_only_meanwhile():
    model = low_rank(network())
    seen = {}
    generator = torch.Generator().manual_seed(0)
    for _ in range(400):
        with sampled_rank(model, generator) as (name, rank):
            layer = factored_layers(model)[name]
            seen[name, rank] = seen.get((name, rank), 0) + 1
            left, right = layer.left[:, :rank], layer.right[:rank]
            torch.testing.assert_close(layer.weight(), left @ right)
            others = [other for key, other in factored_layers(model).items() if key != name]
            assert all(other.active is None for other in others)
        assert layer.active is None
    assert set(seen) == {(name, r) for name, rank in (("0", 8), ("6", 16), ("11", 3)) for r in range(1, rank + 1)}
    assert max(seen.values()) < 40  # 400 / 27, all alike


def test_the_penalty_is_the_sum_over_all_tails():
    torch.manual_seed(0)
    model = low_rank(nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3))).double()
    expected = sum(
        float(layer.left.detach()[:, b:].norm() + layer.right.detach()[b:].norm())
        for layer in factored_layers(model).values()
        for b in range(layer.rank)
    )
    assert float(group_lasso(model).detach()) == pytest.approx(expected)
    layer = model[0]
    left, right = layer.left.detach(), layer.right.detach()
    tails = [float(left[:, b:].norm() * right[b:].norm()) for b in range(4)]
    assert layer.importance().tolist() == pytest.approx(tails)
    zero = low_rank(nn.Linear(3, 3))
    for part in zero.parameters():
        nn.init.zeros_(part)
    group_lasso(zero).backward()
    assert all(bool(part.grad.isfinite().all()) for part in (zero.left, zero.right))


def test_truncation_keeps_what_matters_and_at_least_one_column():
    weight = torch.diag(torch.tensor([4.0, 2.0, 1e-4, 1e-5]))
    layer = nn.Linear(4, 4)
    layer.weight.data.copy_(weight)
    model = low_rank(nn.Sequential(layer))
    assert truncate(model, 1e-2) == {"0": 2}
    torch.testing.assert_close(model[0].weight().detach(), weight * (weight > 1))
    assert truncate(model, 100) == {"0": 1}


def test_without_learning_it_is_the_singular_value_decomposition():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 24), nn.ReLU(), nn.Linear(24, 4))
    stored = lowrank(model, method="svd", share=0.3, ends=True)
    built = stored.build(copy.deepcopy(model))
    for k in (0, 2, 4):
        if not hasattr(built[k], "rank"):
            torch.testing.assert_close(built[k].weight, model[k].weight)
            continue
        u, s, v = torch.linalg.svd(model[k].weight.detach())
        r = built[k].rank
        torch.testing.assert_close(built[k].weight().detach(), u[:, :r] @ s[:r].diag() @ v[:r], rtol=1e-4, atol=1e-5)
    numbers = sum(t.numel() for name, t in stored.tensors.items() if "bias" not in name)
    whole = sum(model[k].weight.numel() for k in (0, 2, 4))
    assert 0.27 * whole < numbers <= 0.3 * whole


@pytest.mark.parametrize("method", ["svd", "maestro"])
def test_learning_brings_the_answers_nearer(method):
    model = network()
    options = {"method": method, "share": 0.3, "ends": True, "rate": 3e-3}
    errors = []
    for epochs in (1, 20):
        built = lowrank(model, batches, epochs=epochs, **options).build(network())
        with torch.no_grad():
            found, wanted = (net(images()).log_softmax(1) for net in (built, model))
        errors.append(float((found - wanted).square().mean()))
    assert errors[1] < 0.5 * errors[0]


def test_learning_orders_the_columns():
    """Trained from columns in the wrong order, the first are those of the largest singular values."""
    torch.manual_seed(0)
    layer = nn.Linear(4, 4, bias=False).double()
    u, v = (torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64)).Q for _ in range(2))
    layer.weight.data.copy_(u @ torch.diag(torch.tensor([0.5, 1.0, 2.0, 4.0], dtype=torch.float64)) @ v.T)
    model = low_rank(layer)
    with torch.no_grad():
        model.left.copy_(model.left.flip(1))
        model.right.copy_(model.right.flip(0))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    generator = torch.Generator().manual_seed(0)
    for _ in range(1000):
        optimizer.zero_grad()
        with sampled_rank(model, generator):
            (model.weight() - layer.weight).square().sum().backward()
        optimizer.step()
    first = model.left.detach()[:, 0] / model.left.detach()[:, 0].norm()
    assert abs(float(first @ u[:, 3])) > 0.98


def thick() -> nn.Sequential:
    """Layers whose outputs lie in few dimensions, but for a little."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 1), nn.ReLU(),
        nn.AvgPool2d(3), nn.Flatten(), nn.Linear(128, 5),
    )  # fmt: skip
    with torch.no_grad():
        for k, rank in ((2, 3), (4, 4)):
            weight = net[k].weight.flatten(1)
            u, s, v = torch.linalg.svd(weight, full_matrices=False)
            s[rank:] *= 0.01
            net[k].weight.copy_((u @ s.diag() @ v).view_as(net[k].weight))
    return net.eval()


@pytest.mark.parametrize("error", [0.002, 0.02, 0.2])
def test_by_default_the_answers_change_little(error):
    model = thick()
    stored = lowrank(model, batches, error=error)
    built = stored.build(thick())
    assert answers_changed(built, model, images()) <= error
    assert set(factored_layers(built)) <= {"2", "4"}  # neither the first nor the last
    assert stored.bytes < 0.8 * Stored("dense", model.state_dict()).bytes
    # Of images that nothing was measured on, too.
    others = torch.rand(200, 1, 8, 8, generator=torch.Generator().manual_seed(5))
    assert answers_changed(built, model, others) <= 2 * error


def test_more_error_leaves_fewer_weights():
    sizes = [lowrank(thick(), batches, error=error, ends=True).bytes for error in (0.001, 0.05, 0.6)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < sizes[0]


def test_what_costs_too_much_stays():
    """Weights of full rank, of which no product of two matrices would be smaller, are what they were."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    with torch.no_grad():
        model[2].weight.copy_(torch.linalg.qr(torch.randn(8, 8)).Q)

    def rows():
        yield Batch(
            (torch.randn(64, 8, generator=torch.Generator().manual_seed(0)),), torch.zeros(64), torch.arange(64)
        )

    stored = lowrank(model, rows)
    assert stored.settings["layers"] == []
    assert all(torch.equal(value, stored.tensors[name]) for name, value in model.state_dict().items())


def test_directions_that_no_input_has_are_cut_first():
    """The nearest outputs, and not the nearest weights: a large weight on an input that is small costs nothing."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Identity(), nn.Linear(30, 20, bias=False))
    scale = torch.cat([torch.ones(3), torch.full((27,), 1e-3)])

    def rows():
        x = torch.randn(400, 30, generator=torch.Generator().manual_seed(0)) * scale
        yield Batch((x,), torch.zeros(400), torch.arange(400))

    built = lowrank(model, rows, ends=True, error=0.05).build(copy.deepcopy(model))
    assert built[1].rank <= 12
    x = torch.randn(400, 30, generator=torch.Generator().manual_seed(1)) * scale
    assert answers_changed(built, model, x) < 0.05
    plain = lowrank(model, method="svd", share=built[1].rank * 50 / 600, ends=True).build(copy.deepcopy(model))
    assert answers_changed(built, model, x) < 0.2 * answers_changed(plain, model, x)


def test_without_images_the_weights_themselves_say():
    stored = lowrank(thick(), error=0.08)
    for name, layer in factored_layers(stored.build(thick())).items():
        weight = thick().get_submodule(name).weight.detach().flatten(1)
        assert float((layer.weight().detach() - weight).square().sum() / weight.square().sum()) <= 0.01


def test_images_are_from_all_over():
    taken = some_images(batches, torch.device("cpu"), 10)
    assert torch.equal(taken, images()[::3])
    with pytest.raises(ConfigError, match="batches is empty"):
        some_images(lambda: iter([]), torch.device("cpu"))


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match=r"share=0\.25"):
        lowrank(network(), batches, method="maestro")
    with pytest.raises(ConfigError, match="needs batches"):
        lowrank(network(), method="maestro", share=0.25)
    with pytest.raises(ConfigError, match="ends=true"):
        lowrank(nn.Linear(3, 2))
    with pytest.raises(ConfigError, match="to factor"):
        low_rank(nn.Conv2d(4, 4, 3, groups=2))
    with pytest.raises(ConfigError, match="low_rank"):
        group_lasso(nn.Linear(2, 2))
    stored = lowrank(nn.Linear(8, 8), method="svd", share=0.25, ends=True)
    with pytest.raises(CheckpointError, match=r"the layer is \[8, 9\]"):
        stored.build(nn.Linear(9, 8))
    with pytest.raises(CheckpointError, match="no layer to factor"):
        Stored("lowrank", stored.tensors, {"layers": [""]}).build(nn.ReLU())

from __future__ import annotations

import math

import pytest
import torch
from nets import images, network
from torch import nn

from repertoire.compress import int8, prune
from repertoire.compress._int8 import nearest_steps
from repertoire.compress._packing import pack, unpack
from repertoire.errors import CheckpointError, ConfigError
from repertoire.weights import Stored


@pytest.mark.parametrize("bits", [1, 2, 3, 5, 8, 11])
@pytest.mark.parametrize("count", [0, 1, 7, 64])
def test_numbers_come_back_from_their_bits(bits, count):
    numbers = torch.randint(2**bits, (count,), generator=torch.Generator().manual_seed(bits))
    stored = pack(numbers, bits)
    assert stored.nbytes == math.ceil(count * bits / 8)
    assert torch.equal(unpack(stored, bits, count), numbers)
    stream = "".join(f"{n:0{bits}b}"[::-1] for n in numbers.tolist())
    assert [int(stream[i : i + 8][::-1], 2) for i in range(0, len(stream), 8)] == stored.tolist()
    with pytest.raises(CheckpointError, match="numbers of"):
        unpack(stored, bits, count + 9)


def test_pruned_weights_are_the_largest_of_all_layers():
    model = network()
    stored = prune(model, 0.7, ends=True)
    built = stored.build(network())
    layers = (0, 3, 6, 11)
    every = torch.cat([model[k].weight.detach().abs().flatten() for k in layers])
    edge = every.sort().values[round(0.7 * len(every))]
    for k in layers:
        expected = model[k].weight.detach() * (model[k].weight.detach().abs() >= edge)
        assert torch.equal(built[k].weight.detach(), expected)
        assert built[k].bias is model[k].bias or torch.equal(built[k].bias, model[k].bias)
    kept = len(every) - round(0.7 * len(every))
    held = sum(t.nbytes for name, t in stored.tensors.items() if name.endswith((":mask", ":values")))
    assert held == 4 * kept + sum(math.ceil(model[k].weight.numel() / 8) for k in layers)


def test_pruning_in_groups_and_without_the_ends():
    model = network()
    built = prune(model, 0.5, group=4, ends=False).build(network())
    assert torch.equal(built[0].weight, model[0].weight)
    assert torch.equal(built[11].weight, model[11].weight)
    rows = built[6].weight.detach().flatten(1).unflatten(1, (-1, 4))
    assert bool(((rows != 0).sum(2) == 2).all())


def test_whole_numbers_are_near_and_as_few_as_they_say():
    model = network()
    for bits in (8, 3):
        stored = int8(model, bits)
        built = stored.build(network())
        for k in (0, 3, 6, 11):
            found, weight = built[k].weight.detach().flatten(1), model[k].weight.detach().flatten(1)
            steps = stored.tensors[f"{k}.weight:steps"][:, None]
            numbers = found / steps
            torch.testing.assert_close(numbers, numbers.round())
            assert float(numbers.round().abs().max()) <= 2 ** (bits - 1) - 1
            assert stored.tensors[f"{k}.weight:numbers"].nbytes == math.ceil(weight.numel() * bits / 8)
            inside = weight.abs() <= steps * (2 ** (bits - 1) - 1)
            assert bool(((found - weight).abs() <= 0.501 * steps)[inside].all())
    with torch.no_grad():
        torch.testing.assert_close(int8(model).build(network())(images()), model(images()), atol=0.02, rtol=0)


def test_the_step_is_the_best_of_those_tried():
    rows = torch.randn(5, 200, generator=torch.Generator().manual_seed(0))
    numbers, steps = nearest_steps(rows, 3)
    for row, step, whole in zip(rows, steps.tolist(), numbers, strict=True):
        tried = [float(row.abs().max()) / 3 * n / 40 for n in range(2, 41)]
        errors = [float(((row / s).round().clamp(-3, 3) * s - row).square().sum()) for s in tried]
        assert step == pytest.approx(tried[errors.index(min(errors))])
        assert float((whole * step - row).square().sum()) == pytest.approx(min(errors), rel=1e-4)
    zero, _ = nearest_steps(torch.zeros(2, 3), 4)
    assert zero.tolist() == [[0, 0, 0]] * 2


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="no linear layer"):
        prune(nn.LayerNorm(3))
    with pytest.raises(ConfigError, match="ends=true"):
        int8(nn.Linear(3, 2), ends=False)
    stored = prune(nn.Linear(4, 2), 0.5, ends=True)
    for tensors, said in (
        ({k: v for k, v in stored.tensors.items() if k != "weight:mask"}, "weight:mask is missing"),
        ({**stored.tensors, "weight:values": torch.zeros(2)}, "2 values for 4 places"),
    ):
        with pytest.raises(CheckpointError, match=said):
            Stored("sparse", tensors, stored.settings).build(nn.Linear(4, 2))
    with pytest.raises(CheckpointError, match="steps for 3"):
        int8(nn.Linear(4, 2)).build(nn.Linear(4, 3))

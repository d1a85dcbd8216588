from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch
from nets import batches, images, network
from torch import nn

from repertoire.compress import codebook, int8
from repertoire.compress._codebook import _Codes
from repertoire.errors import CheckpointError, ConfigError
from repertoire.weights import Stored, input_moments


def problem(blocks: int = 1, out: int = 12, d: int = 10) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    scales = torch.rand(out, 1, generator=generator, dtype=torch.float64) + 0.1
    rows = scales * torch.randn(out, d, generator=generator, dtype=torch.float64)
    x = torch.randn(blocks, 40, d, generator=generator, dtype=torch.float64)
    x[..., 1] += 2 * x[..., 0]
    return rows, x


@pytest.mark.parametrize("blocks", [1, 3])
def test_no_step_raises_the_loss_and_the_loss_is_that_of_the_outputs(blocks):
    rows, x = problem(blocks)
    moments = x.mT @ x / 40
    found = _Codes(rows, 3, 4)
    start = found.loss(moments)
    losses = [start]
    for _ in range(4):
        found.move_values(moments)
        losses.append(found.loss(moments))
        found.move_indices(moments)
        losses.append(found.loss(moments))
    assert all(after <= before * (1 + 1e-9) for before, after in pairwise(losses))
    assert losses[-1] < 0.8 * start
    error = (found.quantised() - rows).view(blocks, -1, 10)
    expected = sum(float((x[b] @ error[b].T).square().sum()) / 40 for b in range(blocks))
    assert losses[-1] == pytest.approx(expected)


def test_indices_move_to_neighbours_only_and_every_move_pays():
    rows, x = problem()
    moments = x.mT @ x / 40
    found = _Codes(rows, 2, 8)
    before = found.indices.clone()
    moved = found.move_indices(moments)
    distance = (found.indices - before).abs()
    assert moved == int((distance > 0).sum()) > 0
    assert int(distance.max()) == 1


def test_values_are_the_least_squares_solution():
    rows, x = problem()
    found = _Codes(rows, 2, 4)
    indices, owner = found.indices.clone(), found.owner.clone()
    found.move_values(x.mT @ x / 40)
    for group in range(2):
        # One equation for each sample and row: sum_k (sum_{j in k} x_j) c_k = x . w
        design, right = [], []
        for row in (owner == group).nonzero().flatten().tolist():
            one_hot = nn.functional.one_hot(indices[row], 4).double()
            design.append(x[0] @ one_hot)
            right.append(x[0] @ rows[row])
        solution = torch.linalg.lstsq(torch.cat(design), torch.cat(right)[:, None]).solution.flatten()
        torch.testing.assert_close(found.books[group], solution.sort().values, rtol=1e-5, atol=1e-6)


def test_neurons_of_one_scale_share_a_codebook():
    generator = torch.Generator().manual_seed(1)
    scales = torch.tensor([1.0, 0.01, 1.0, 0.01, 0.01, 1.0], dtype=torch.float64)
    rows = scales[:, None] * torch.randn(6, 50, generator=generator, dtype=torch.float64)
    found = _Codes(rows, 2, 4)
    assert found.owner.tolist() == [1, 0, 1, 0, 0, 1]
    assert bool((found.books.diff(dim=1) >= 0).all())
    # The same neurons in another order have the same codebooks and the same values, so the order may be taken back.
    order = torch.tensor([4, 2, 0, 5, 1, 3])
    again = _Codes(rows[order], 2, 4)
    torch.testing.assert_close(again.books, found.books)
    torch.testing.assert_close(again.quantised(), found.quantised()[order])


def test_the_loss_of_a_network_falls_and_eight_bits_lose_nothing():
    model = network()
    moments = input_moments(model, batches())
    plain, learned = (codebook(model, batches, bits=2, groups=2, rounds=r).build(network()) for r in (0, 10))
    for k in (3, 6):
        change = [(built[k].weight - model[k].weight).detach().double().flatten(1) for built in (plain, learned)]
        held = moments[str(k)] if k == 3 else moments[str(k)][None]
        losses = [
            float(((e.view(len(held), -1, e.shape[1]) @ held) * e.view(len(held), -1, e.shape[1])).sum())
            for e in change
        ]
        assert losses[1] < 0.7 * losses[0]
    with torch.no_grad():
        whole = codebook(model, batches, bits=8, ends=True).build(network())
        torch.testing.assert_close(whole(images()), model(images()), atol=0.02, rtol=0)


def test_the_file_is_as_small_as_the_bits_say():
    model = network()
    stored = codebook(model, batches, bits=2, groups=3)
    weight = model[6].weight
    assert stored.tensors["6.weight:indices"].nbytes == weight.numel() * 2 // 8
    assert stored.tensors["6.weight:codebooks"].shape == (3, 4)
    assert stored.tensors["6.weight:groups"].nbytes == 16 * 2 // 8
    assert stored.tensors["0.weight:numbers"].nbytes == model[0].weight.numel()
    assert stored.bytes < int8(model).bytes
    built = stored.build(network())
    assert built[6].weight.unique().numel() <= 12


def test_statistics_are_those_of_the_new_weights():
    model = network()
    built = codebook(model, batches, bits=1, groups=1).build(network())
    seen = []
    handle = built[6].register_forward_hook(lambda module, args, output: seen.append(output))
    with torch.no_grad():
        built(images())
    handle.remove()
    mean = seen[0].mean((0, 2, 3))
    # Measured batch by batch, so not to the last digit.
    assert float((built[7].running_mean - mean).abs().max()) < 0.2 * float((model[7].running_mean - mean).abs().max())
    before = copy.deepcopy(model.state_dict())
    codebook(model, batches)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="bits must"):
        codebook(network(), bits=9)
    with pytest.raises(ConfigError, match="batches is empty"):
        codebook(network(), lambda: iter([]))
    stored = codebook(nn.Linear(8, 4), bits=2, ends=True)
    broken = {**stored.tensors, "weight:codebooks": torch.zeros(4, 3)}
    with pytest.raises(CheckpointError, match="codebooks of"):
        Stored("codebook", broken, stored.settings).build(nn.Linear(8, 4))

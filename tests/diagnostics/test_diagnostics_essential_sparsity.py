from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from repertoire.data import Batch
from repertoire.diagnostics import magnitude_masks, prunable_weights, sparsity_knee
from repertoire.diagnostics.landscape._essential_sparsity import _knee
from repertoire.errors import ConfigError, ShapeError


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(27, 4))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.77, 1.0])
def test_masks_are_those_of_torch(share):
    model = network()
    masks = magnitude_masks(prunable_weights(model), share)
    pruned = copy.deepcopy(model)
    layers = [(pruned[0], "weight"), (pruned[4], "weight")]
    prune.global_unstructured(layers, pruning_method=prune.L1Unstructured, amount=share)
    assert torch.equal(masks["0.weight"], pruned[0].weight_mask.bool())
    assert torch.equal(masks["4.weight"], pruned[4].weight_mask.bool())


def test_masks_are_nested_where_magnitudes_are_equal():
    weights = {"a": torch.ones(3, 4), "b": torch.tensor([[1.0, 0.5]])}
    before = magnitude_masks(weights, 0.0)
    for n in range(1, 15):
        masks = magnitude_masks(weights, n / 14)
        assert sum(int((~mask).sum()) for mask in masks.values()) == n
        assert all(bool((masks[name] <= before[name]).all()) for name in weights)
        before = masks


@pytest.mark.parametrize(("kept", "group"), [(2, 4), (1, 4), (3, 8), (0, 2)])
def test_groups_keep_exactly_their_number(kept, group):
    weight = torch.randn(5, 24, generator=torch.Generator().manual_seed(0)).view(5, 6, 2, 2)
    mask = magnitude_masks({"w": weight}, 1 - kept / group, group=group)["w"]
    assert bool((mask.flatten(1).unflatten(1, (-1, group)).sum(2) == kept).all())
    for row, held in zip(weight.flatten(1).abs().tolist(), mask.flatten(1).tolist(), strict=True):
        for start in range(0, 24, group):
            values, chosen = row[start : start + group], held[start : start + group]
            assert sorted(range(group), key=lambda i: -values[i])[:kept] == sorted(
                (i for i in range(group) if chosen[i]), key=lambda i: -values[i]
            )


def test_a_group_that_is_cut_short_keeps_its_largest():
    mask = magnitude_masks({"w": torch.tensor([[1.0, 2.0, 3.0, 4.0, 0.3, 0.2, 0.1]])}, 0.5, group=4)["w"]
    assert mask.tolist() == [[False, False, True, True, True, True, False]]


def test_the_curve_is_that_of_a_loop_and_the_model_stays():
    model = network().eval()
    before = copy.deepcopy(model.state_dict())
    x = torch.randn(60, 1, 5, 5, generator=torch.Generator().manual_seed(1))
    y = model(x).argmax(1)
    found = sparsity_knee(model, iter([(x[:20], y[:20]), (x[20:], y[20:])]), points=5, draws=50)
    assert found.names == ("0.weight", "4.weight")
    assert found.shares == (0.0, 0.2, 0.4, 0.6, 0.8)
    for share, score in zip(found.shares, found.scores, strict=True):
        pruned = copy.deepcopy(model)
        every = torch.cat([pruned[0].weight.flatten(), pruned[4].weight.flatten()]).abs().sort().values
        edge = every[round(share * len(every))]
        with torch.no_grad():
            for layer in (pruned[0], pruned[4]):
                layer.weight[layer.weight.abs() < edge] = 0
            assert score == pytest.approx(float((pruned(x).argmax(1) == y).double().mean()))
    assert found.scores[0] == 1
    assert found.interval[0] <= found.knee <= found.interval[1]
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_the_knee_of_a_straight_line_with_a_corner_is_the_corner():
    shares = [n / 20 for n in range(20)]
    corner = [0.9 if s <= 0.6 else 0.9 - 2 * (s - 0.6) for s in shares]
    assert _knee(shares, torch.tensor(corner).numpy()) == pytest.approx(0.6)
    assert _knee(shares, torch.tensor([0.5] * 20).numpy()) == shares[-1]


def test_groups_sweep_the_patterns_and_a_function_is_given_copies():
    seen = []

    def answers(pruned: nn.Module) -> torch.Tensor:
        seen.append(int((pruned[4].weight != 0).sum()))
        pruned[4].weight.data.zero_()  # it may do with it what it likes
        return torch.tensor([1.0, 0.0])

    found = sparsity_knee(network(), answers, group=4, skip=["0"])
    assert found.shares == (0.0, 0.25, 0.5, 0.75)
    # Rows of 27: six groups of four, and three that keep what is asked for.
    assert seen == [4 * 27, 4 * (6 * 3 + 3), 4 * (6 * 2 + 2), 4 * 7]
    assert found.knee == 0.75


def test_batches_of_the_library_and_how_far_the_score_holds():
    model = nn.Linear(2, 2, bias=False)
    model.weight.data.copy_(torch.tensor([[3.0, 0.0], [0.0, 3.0]]))
    batch = Batch((torch.eye(2),), torch.tensor([0, 1]), torch.arange(2))
    found = sparsity_knee(model, [batch], points=4)
    assert found.scores[:3] == (1, 1, 1)
    assert found.within(0) == 0.5


def test_what_cannot_be_pruned_is_refused():
    with pytest.raises(ConfigError, match="no linear layer"):
        sparsity_knee(nn.LayerNorm(3), [])
    with pytest.raises(ConfigError, match="no samples"):
        sparsity_knee(nn.Linear(2, 2), [])
    with pytest.raises(ConfigError, match="'head'"):
        prunable_weights(network(), skip=["head"])
    lengths = iter([1, 2])
    with pytest.raises(ShapeError, match="2 samples, and of 1 before"):
        sparsity_knee(nn.Linear(2, 2), lambda model: torch.ones(next(lengths)))
    with pytest.raises(ShapeError, match="out, inputs"):
        magnitude_masks({"w": torch.ones(3)}, 0.5, group=2)

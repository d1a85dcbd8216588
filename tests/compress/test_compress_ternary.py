"""A network stored as what fine-tuning has changed: what is coded, what is whole, and which base it wants."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from repertoire.compress import ternary
from repertoire.errors import CheckpointError, ConfigError


def nets():
    """A start, and the same fine-tuned, with a head of other classes."""
    torch.manual_seed(0)
    start = nn.Sequential(nn.Linear(20, 30), nn.BatchNorm1d(30), nn.Linear(30, 4))
    fine = copy.deepcopy(start)
    with torch.no_grad():
        for value in fine.parameters():
            value += 0.1 * torch.randn(value.shape)
    fine[2] = nn.Linear(30, 3)
    fine(torch.randn(9, 20))
    begun = copy.deepcopy(fine)
    begun.load_state_dict({**fine.state_dict(), **{n: v for n, v in start.state_dict().items() if n[0] != "2"}})
    return start, fine.eval(), begun


def test_matrices_are_signs_of_the_largest_changes_and_the_rest_is_as_it_was():
    start, fine, begun = nets()
    stored = ternary(fine, start.state_dict(), lambda net: 0.0, density=0.1, alpha=2.0)
    before, after = start.state_dict(), stored.build(begun).state_dict()
    change = fine.state_dict()["0.weight"] - before["0.weight"]
    kept = change.abs() >= change.abs().flatten().sort(descending=True).values[59]
    expected = before["0.weight"] + 2.0 * change.std(correction=0) * change.sign() * kept
    torch.testing.assert_close(after["0.weight"], expected)
    for name, value in fine.state_dict().items():
        if name != "0.weight":
            assert torch.equal(after[name], value), name
    assert stored.settings["alpha"] == 2.0


def test_the_size_with_the_best_score_is_taken():
    start, fine, begun = nets()
    seen = []

    def score(net):
        change = net.state_dict()["0.weight"] - start.state_dict()["0.weight"]
        seen.append(float(change.abs().max()))
        return -abs(seen[-1] - 0.4)

    before = copy.deepcopy(fine.state_dict())
    stored = ternary(fine, start.state_dict(), score)
    assert len(seen) == 9
    best = min(seen, key=lambda size: abs(size - 0.4))
    change = stored.build(begun).state_dict()["0.weight"] - start.state_dict()["0.weight"]
    assert float(change.abs().max()) == pytest.approx(best)
    torch.testing.assert_close(dict(fine.state_dict()), dict(before), rtol=0, atol=0)


def test_what_did_not_change_is_not_stored():
    start, _, _ = nets()
    start.eval()
    stored = ternary(start, start.state_dict(), lambda net: 0.0)
    assert {name for name in stored.tensors if not name.startswith("ternary:")} == set()
    torch.testing.assert_close(dict(stored.build(copy.deepcopy(start)).state_dict()), dict(start.state_dict()))


def test_another_base_or_network_is_refused():
    start, fine, begun = nets()
    stored = ternary(fine, start.state_dict(), lambda net: 0.0, alpha=1.0)
    with torch.no_grad():
        begun[0].weight.mul_(2)
    with pytest.raises(CheckpointError, match="weights that were fine-tuned"):
        stored.build(begun)
    with pytest.raises(CheckpointError, match="do not fit the network, which has no"):
        stored.build(nn.Sequential(nn.Linear(20, 30)))
    with pytest.raises(ConfigError, match="no matrix of Sequential is in the base"):
        ternary(fine, {}, lambda net: 0.0)
    with pytest.raises(ConfigError, match="density must lie in"):
        ternary(fine, start.state_dict(), lambda net: 0.0, density=0.0)

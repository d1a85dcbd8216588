"""One shared network and what experts add: against weights that are made for each sample."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call

from repertoire.errors import CheckpointError, ConfigError
from repertoire.weights import Stored, twin


def empty() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1, padding_mode="reflect"),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3, groups=6),
        nn.Conv2d(6, 8, 3, stride=2, bias=False),
        nn.GroupNorm(2, 8),
        nn.ReLU(),
        nn.Flatten(2),
        nn.LayerNorm(4),
        nn.Linear(4, 4),
        nn.Flatten(),
        nn.Linear(32, 3),
    ).eval()


def network(state, of=0):
    net = empty()
    net.load_state_dict(dict(state))
    return net


def states(count: int) -> list[dict[str, torch.Tensor]]:
    found = []
    for seed in range(count):
        torch.manual_seed(seed)
        net = empty().train()
        for parameter in net.parameters():
            nn.init.normal_(parameter, std=0.5)
        net(torch.rand(9, 1, 7, 7))
        found.append({name: value.clone() for name, value in net.state_dict().items()})
    return found


class Padding(nn.Conv2d):
    """Pads its inputs by itself, and at one side only."""

    def forward(self, x):
        return super().forward(nn.functional.pad(x, (0, 1, 0, 1)))


@pytest.mark.parametrize("rank", [1, 100])
def test_layers_that_pad_their_inputs_themselves(rank):
    def empty():
        layers = [Padding(1, 4, 3, stride=2), nn.ReLU(), Padding(4, 4, 3, groups=4), Padding(4, 8, 3, bias=False)]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)).eval()

    def network(state, of=0):
        net = empty()
        net.load_state_dict(dict(state))
        return net

    torch.manual_seed(0)
    base, *fine = [dict(empty().state_dict()) for _ in range(3)]
    net = twin(fine, base, network, batches, rank=rank).build(empty())
    x = next(batches(0))[0]
    net.twin_router.fixed = torch.eye(2)[1]
    if rank == 100:
        torch.testing.assert_close(net(x), network(fine[1])(x), rtol=1e-4, atol=1e-4)
    assert net(x).shape == (20, 3)


def batches(of):
    for run in range(2) if of is None else (of,):
        generator = torch.Generator().manual_seed(run)
        stripes = (torch.arange(7) % 2).float().view(1, 7) if run else (torch.arange(7) % 2).float().view(7, 1)
        yield torch.rand(20, 1, 7, 7, generator=generator) + 2 * stripes, torch.zeros(20, dtype=torch.int64)


@pytest.fixture(scope="module")
def merged():
    base, *fine = states(3)
    return fine, {rank: twin(fine, base, network, batches, rank=rank) for rank in (2, 100)}


def test_of_full_rank_and_with_the_right_expert_it_is_the_expert(merged):
    fine, found = merged
    net = found[100].build(empty())
    x = next(batches(0))[0]
    for number, state in enumerate(fine):
        net.twin_router.fixed = torch.eye(2)[number]
        torch.testing.assert_close(net(x), network(state)(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rank", [2, 100])
def test_it_is_a_loop_that_makes_weights_for_each_sample(merged, rank):
    _, found = merged
    stored = found[rank]
    net = stored.build(empty())
    x = torch.cat([next(batches(0))[0][:3], next(batches(1))[0][:3]])
    outputs, shares = net(x), net.twin_router.shares.detach()
    assert shares.shape == (6, 2)
    for i, share in enumerate(shares):
        weights = {name: value for name, value in stored.tensors.items() if not name.startswith("twin.")}
        for name, value in weights.items():
            owner, _, own = name.rpartition(".")
            if f"twin.{name}" in stored.tensors:
                weights[name] = value + torch.tensordot(share, stored.tensors[f"twin.{name}"], 1)
            elif own == "weight" and f"twin.{owner}.left" in stored.tensors:
                left, right = (stored.tensors[f"twin.{owner}.{part}"] for part in ("left", "right"))
                change = torch.einsum("t,tor,trc->oc", share, left, right.flatten(2))
                weights[name] = value + change.view_as(value)
        single = functional_call(empty(), weights, (x[i : i + 1],))
        torch.testing.assert_close(outputs[i : i + 1], single, rtol=1e-4, atol=1e-4)


def test_the_rank_is_that_of_the_singular_values(merged):
    fine, found = merged
    stored = found[2]
    left, right = (stored.tensors[f"twin.4.{part}"] for part in ("left", "right"))
    change = fine[1]["4.weight"] - stored.tensors["4.weight"]
    values = torch.linalg.svdvals(change.flatten(1))
    rest = change.flatten(1) - left[1] @ right[1].flatten(1)
    assert rest.norm().item() == pytest.approx(values[2:].norm().item(), rel=1e-4)
    assert "twin.3.weight" in stored.tensors  # a convolution in groups is kept whole
    assert found[2].bytes < found[100].bytes


def test_the_router_knows_whose_inputs_they_are(merged, tmp_path):
    _, found = merged
    found[2].save(tmp_path / "twin.safetensors")
    net = Stored.load(tmp_path / "twin.safetensors").build(empty())
    for of in range(2):
        net(next(batches(of))[0])
        assert (net.twin_router.shares.argmax(1) == of).float().mean() > 0.7
    other = copy.deepcopy(net)
    x = next(batches(0))[0]
    other.twin_router.fixed = torch.eye(2)[1]
    assert not torch.allclose(other(x), net(x))
    torch.testing.assert_close(net(x), found[2].build(empty())(x))


class WithBackbone(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = Backbone()
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        return self.head(self.backbone(x))


class Backbone(nn.Module):
    out_features = 3

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 3)

    def forward(self, x):
        return self.linear(x).relu()


def test_backbones_alone_are_merged_and_keep_their_network():
    def network(state, of=0):
        net = WithBackbone().eval()
        net.load_state_dict({**dict(state), **heads[of]})
        return net

    torch.manual_seed(0)
    heads = [{f"head.{n}": v for n, v in nn.Linear(3, 2).state_dict().items()} for _ in range(2)]
    base, *fine = ({f"backbone.linear.{n}": v for n, v in nn.Linear(2, 3).state_dict().items()} for _ in range(3))
    stored = twin(
        fine, base, network, lambda of: ((torch.randn(20, 2) + 3 * n, None) for n in ([of] if of else [0, 1]))
    )
    model = WithBackbone().eval()
    net = Stored(stored.form, {**stored.tensors, **heads[1]}, stored.settings).build(model)
    assert net is model
    net.backbone.twin_router.fixed = torch.eye(2)[1]
    x = torch.randn(5, 2)
    torch.testing.assert_close(net(x), network(fine[1], 1)(x), rtol=1e-4, atol=1e-5)
    other = copy.deepcopy(net)
    other.backbone.twin_router.fixed = torch.eye(2)[0]
    torch.testing.assert_close(other(x), network(fine[0], 1)(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(net(x), network(fine[1], 1)(x), rtol=1e-4, atol=1e-5)


def test_what_it_cannot_mix_is_named():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.token = nn.Parameter(torch.zeros(2))

        def forward(self, x):
            return x + self.token

    with pytest.raises(ConfigError, match="token is of Own"):
        twin(
            [{"token": torch.ones(2)}],
            {"token": torch.zeros(2)},
            lambda state, of=0: Own(),
            lambda of: iter([torch.ones(1, 2)]),
        )
    with pytest.raises(CheckpointError, match="no router"):
        Stored("twin", empty().state_dict(), {"experts": 2}).build(empty())

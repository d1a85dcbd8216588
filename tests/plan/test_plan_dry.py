"""A step on fake tensors: what it says is what a real step takes from the allocator."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from repertoire import registry
from repertoire.plan import Footprint, Ledger, dry_step

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "planner.py"
CPU = torch.device("cpu")
NETWORK = "convnet:width=8,depth=3"


@pytest.fixture(scope="module")
def planner():
    spec = importlib.util.spec_from_file_location("planner", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["planner"] = module
    spec.loader.exec_module(module)
    return module


def footprint(planner, rule: str, batch: int = 16, accumulate: int = 1, **options: object) -> Footprint:
    config = planner.new_config(NETWORK, 16, batch, rule, accumulate, **options)
    return dry_step(config, planner.new_method(config, 16), (3, 16, 16), device=CPU)


@pytest.mark.parametrize(
    ("rule", "accumulate", "options"),
    [
        ("backprop", 1, {"optimizer": "adamw", "clip": 1.0}),
        ("backprop", 4, {"precision": "bf16"}),
        ("checkpoint", 1, {}),
        ("local:blocks=3,auxiliary=(conv:depth=1)", 1, {}),
        ("local:blocks=all,auxiliary=linear", 2, {"precision": "bf16"}),
        ("local:blocks=3,auxiliary=(conv:depth=1),overlap=1", 1, {}),
        ("local:blocks=3,auxiliary=linear,overlap=1", 2, {"precision": "bf16"}),
        ("local:blocks=3,auxiliary=(hpff:base=(conv:depth=1)),overlap=99", 1, {}),
    ],
)
def test_the_peak_is_that_of_the_allocator(planner, rule: str, accumulate: int, options: dict):
    config = planner.new_config(NETWORK, 16, 64, rule, accumulate, **options)
    method = planner.new_method(config, 16)
    found = dry_step(config, method, (3, 16, 16), device=CPU)
    step = planner.new_step(config, method)
    step()
    measured = found.resident + found.images + planner.measured_peak(step)
    assert found.peak == pytest.approx(measured, rel=0.1)


def test_a_batch_that_is_changed_before_it_is_cut_is_counted_whole(planner):
    """Two pieces stand for many, but not for what is made of all of them at once."""
    config = planner.new_config(NETWORK, 16, 64, "backprop", 8).model_copy(update={"method": "supervised:mix=mixup"})
    method = planner.new_method(config, 16)
    found = dry_step(config, method, (3, 16, 16), device=CPU)
    step = planner.new_step(config, method)
    step()
    measured = found.resident + found.images + planner.measured_peak(step)
    assert found.peak == pytest.approx(measured, rel=0.1)
    assert found.peak > footprint(planner, "backprop", 64, 8).peak + 64 * 3 * 16 * 16 * 4 / 2


def test_what_is_held_between_steps_is_what_the_parts_say(planner):
    config = planner.new_config(NETWORK, 16, 16, "backprop", 1)
    method = planner.new_method(config, 16)
    weights = sum(p.nbytes for p in method.parameters())
    buffers = sum(b.nbytes for b in method.buffers())
    image = 16 * 3 * 16 * 16
    for options, states in (({}, 1), ({"momentum": 0.0}, 0), ({"optimizer": "adamw"}, 2)):
        found = footprint(planner, "backprop", **options)
        assert found.parameters == weights + buffers
        assert weights * states <= found.optimizer <= weights * states + 8 * len(list(method.parameters()))
        assert found.images == 4 * image + image + 2 * 8 * 16, "floats, bytes, labels and numbers"
        assert found.average == 0
    assert footprint(planner, "backprop", ema=0.9).average == weights + buffers
    auxiliary = footprint(planner, "local:blocks=2,auxiliary=linear")
    assert weights + buffers < auxiliary.parameters < 1.2 * (weights + buffers)


def test_half_the_precision_is_about_half_the_activations(planner):
    whole, half = (footprint(planner, "backprop", precision=p).activations for p in ("32", "bf16"))
    assert 0.4 < half / whole < 0.7


def test_many_pieces_are_what_few_pieces_say(planner):
    """Two pieces stand for eight: both hold the gradients of one piece while the next one passes."""
    config = planner.new_config(NETWORK, 16, 64, "backprop", 8)
    method = planner.new_method(config, 16)
    predicted = dry_step(config, method, (3, 16, 16), device=CPU)
    step = planner.new_step(config, method)
    step()
    with Ledger() as ledger:
        step()
    assert predicted.work.flops == pytest.approx(ledger.work.flops, rel=0.01)
    assert predicted.work.bytes == pytest.approx(ledger.work.bytes, rel=0.1)
    assert predicted.resident + predicted.images + planner.measured_peak(step) == pytest.approx(predicted.peak, rel=0.1)


@pytest.mark.parametrize("name", registry.names("auxiliaries"))
def test_every_auxiliary_network_can_be_planned(planner, name: str):
    found = footprint(planner, f"local:blocks=2,auxiliary={name}")
    assert found.activations > 0


@pytest.mark.parametrize("rule", registry.names("rules"))
def test_every_rule_can_be_planned(planner, rule: str):
    assert footprint(planner, f"{rule}:blocks=2" if rule == "local" else rule).activations > 0


def test_nothing_is_computed_and_nothing_changes(planner):
    config = planner.new_config(NETWORK, 32, 2**23, "backprop", 1)
    method = planner.new_method(config, 32)
    before = {name: value.clone() for name, value in method.state_dict().items()}
    state = torch.get_rng_state()
    found = dry_step(config, method, (3, 32, 32), device=CPU)
    assert found.peak > 2**40, "a terabyte that nobody has"
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in method.state_dict().items())


def test_the_benchmark_counts_what_it_says(planner):
    def step() -> None:
        a = torch.zeros(2**20)
        b = a + 1
        del a
        c = torch.zeros(2**20)
        del b, c

    assert planner.measured_peak(step) == pytest.approx(8 * 2**20, rel=0.01)

"""Predicted memory beside what steps take from the allocator, and what is picked from it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from repertoire import registry, train
from repertoire.data import load
from repertoire.errors import ConfigError
from repertoire.train import Plan, PlanRow
from repertoire.train._bytes import format_bytes, parse_bytes
from repertoire.train._dry import Footprint, dry_step
from repertoire.train._ledger import Ledger, Work

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "planner.py"
CPU = torch.device("cpu")
MIB = 2**20


@pytest.fixture(scope="module")
def planner():
    spec = importlib.util.spec_from_file_location("planner", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["planner"] = module
    spec.loader.exec_module(module)
    return module


def footprint(planner, rule: str, batch: int = 16, accumulate: int = 1, **options: object) -> Footprint:
    config = planner.new_config("resnet20:width=8", 16, batch, rule, accumulate, **options)
    return dry_step(config, planner.new_method(config, 16), (3, 16, 16), device=CPU)


@pytest.mark.parametrize(
    ("rule", "accumulate", "options"),
    [
        ("backprop", 1, {"optimizer": "adamw", "clip": 1.0}),
        ("backprop", 4, {"precision": "bf16"}),
        ("checkpoint", 1, {}),
        ("local:blocks=4,auxiliary=(conv:depth=1)", 1, {}),
        ("local:blocks=all,auxiliary=linear", 2, {"precision": "bf16"}),
    ],
)
def test_the_peak_is_that_of_the_allocator(planner, rule: str, accumulate: int, options: dict):
    config = planner.new_config("resnet20:width=8", 16, 64, rule, accumulate, **options)
    method = planner.new_method(config, 16)
    found = dry_step(config, method, (3, 16, 16), device=CPU)
    step = planner.new_step(config, method)
    step()
    measured = found.resident + found.images + planner.measured_peak(step)
    assert found.peak == pytest.approx(measured, rel=0.1)


def test_what_is_held_between_steps_is_what_the_parts_say(planner):
    config = planner.new_config("resnet20:width=8", 16, 16, "backprop", 1)
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
    config = planner.new_config("resnet20:width=8", 16, 64, "backprop", 8)
    method = planner.new_method(config, 16)
    predicted = dry_step(config, method, (3, 16, 16), device=CPU)
    step = planner.new_step(config, method)
    step()
    with Ledger() as ledger:
        step()
    assert predicted.work.flops == pytest.approx(ledger.work.flops, rel=0.01)
    assert predicted.work.bytes == pytest.approx(ledger.work.bytes, rel=0.05)
    assert predicted.resident + predicted.images + planner.measured_peak(step) == pytest.approx(predicted.peak, rel=0.1)


@pytest.mark.parametrize("name", registry.names("auxiliaries"))
def test_every_auxiliary_network_can_be_planned(planner, name: str):
    found = footprint(planner, f"local:blocks=2,auxiliary={name}")
    assert 0 < found.activations < footprint(planner, "backprop").activations * 3


@pytest.mark.parametrize("rule", registry.names("rules"))
def test_every_rule_can_be_planned(planner, rule: str):
    assert footprint(planner, rule).activations > 0


def test_nothing_is_computed_and_nothing_changes(planner):
    config = planner.new_config("resnet20:width=8", 32, 2**22, "backprop", 1)
    method = planner.new_method(config, 32)
    before = {name: value.clone() for name, value in method.state_dict().items()}
    state = torch.get_rng_state()
    found = dry_step(config, method, (3, 32, 32), device=CPU)
    assert found.peak > 2**40, "a terabyte that nobody has"
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in method.state_dict().items())


def row(peak: float, time: float, kind: str = "exact", rule: str = "backprop", accumulate: int = 1) -> PlanRow:
    held = Footprint(0, 0, 0, 0, 0, int(peak * MIB), Work())
    return PlanRow(rule, accumulate, 64 // accumulate, kind, held, time)  # type: ignore[arg-type]


def plan_of(rows: list[PlanRow], budget: float | None) -> Plan:
    return Plan(tuple(rows), (), None if budget is None else int(budget * MIB), MIB, "net", 64, 32, "cpu")


ROWS = [
    row(100, 1.0),
    row(60, 1.02, "pieces", accumulate=2),
    row(40, 1.3, "pieces", accumulate=4),
    row(50, 1.35, rule="checkpoint"),
    row(30, 0.98, "local", rule="local:blocks=2"),
    row(20, 1.05, "local", rule="local:blocks=4"),
    row(10, 1.5, "local", rule="local:blocks=all"),
]


@pytest.mark.parametrize(
    ("budget", "peak"),
    [
        (200, 100),  # back-propagation, though local learning would be a little quicker
        (70, 60),  # pieces, as good as equally fast
        (45, 30),  # exact ways would take a third longer
        (25, 20),
        (12, 10),
    ],
)
def test_the_fastest_that_fits_is_chosen_and_accuracy_breaks_ties(budget: float, peak: float):
    assert plan_of(ROWS, budget).chosen.peak == peak * MIB


def test_the_reason_says_what_it_costs():
    text = plan_of(ROWS, 70).reason()
    assert "--rule backprop --accumulate 2" in text
    assert "60.0 MiB" in text
    assert "would need 100 MiB" in text
    assert "batch normalisation" in text
    assert "costs accuracy" in plan_of(ROWS, 25).reason()
    assert "nothing has to be saved" in plan_of(ROWS, 200).reason()


def test_a_budget_that_nothing_fits_into_names_the_nearest():
    with pytest.raises(ConfigError, match=r"nothing fits into 5.00 MiB.*10.0 MiB \(--rule local:blocks=all\).*10MiB"):
        _ = plan_of(ROWS, 5).chosen


def test_parameters_alone_can_be_too_much(options: dict, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"--memory is 3KB, and the parameters of convnet.* alone take 5\.\d\d KiB"):
        train.fit(out=tmp_path / "a", memory="3KB", **options)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("text", ["4", "4gig", "-1GB", "0MB", "GiB", "", "1e9B"])
def test_amounts_that_are_none(text: str, options: dict):
    with pytest.raises(ConfigError, match=r"memory is .*: expected a positive number with a unit, such as 4GiB"):
        train.fit(memory=text, **options)


def test_amounts():
    assert parse_bytes("4GiB") == 4 * 2**30
    assert parse_bytes("800MB") == 8 * 10**8
    assert parse_bytes(" 2.5 gb") == 25 * 10**8
    assert parse_bytes("512b") == 512
    assert [format_bytes(v) for v in (0, 1023, 1024, 10 * MIB, 100 * MIB, 1023.9 * MIB, 2**40)] == [
        "0 B", "1023 B", "1.00 KiB", "10.0 MiB", "100 MiB", "1.00 GiB", "1024 GiB",
    ]  # fmt: skip


def test_a_run_takes_what_fits_says_so_and_goes_on_with_it(options: dict, tmp_path: Path):
    arguments = {**options, "batch_size": 64, "epochs": 1}
    found = train.plan(**arguments)
    first = found.rows[0]
    second = next(r for r in found.rows if r.accumulate == 2)
    budget = f"{(first.peak + second.peak) // 2}B"
    made = train.fit(out=tmp_path / "a", memory=budget, **arguments)
    assert (made.config.rule, made.config.memory) != ("backprop", None)
    chosen = train.plan(memory=budget, **arguments).chosen
    assert (made.config.rule, made.config.accumulate) == (chosen.rule, chosen.accumulate)
    assert chosen.setting in made.info["notes"][-1]
    assert train.resume(tmp_path / "a").config == made.config


def test_another_rule_is_kept(options: dict):
    assert {r.rule for r in train.plan(**options, rule="sam").rows} == {"sam"}


def test_what_a_loss_does_not_allow_is_no_row(options: dict):
    found = train.plan(**{**options, "augment": "auto"}, loss="supcon")
    assert {r.accumulate for r in found.rows} == {1}
    assert found.rows[1].rule == "checkpoint"
    with pytest.raises(ConfigError, match="leave out --pipeline"):
        train.plan(**options, pipeline="all")


def test_evaluation_and_augmentation_count_too(planner):
    """With a few images at a time a step can need less than augmenting the whole batch."""
    splits = load("digits", seed=0)
    from repertoire.train._build import resolve
    from repertoire.train._config import make_config
    from repertoire.train._plan import make_plan

    config = resolve(make_config(data="digits", backbone="mlp", batch_size=512, augment="simclr", device="cpu"), splits)
    least = min(r.peak for r in make_plan(config, splits, CPU).rows)
    assert least > 512 * 8 * 8 * (4 + 1) + 512 * 8 * 8 * 4


def test_the_benchmark_counts_what_it_says(planner):
    def step() -> None:
        a = torch.zeros(MIB)
        b = a + 1
        del a
        c = torch.zeros(MIB)
        del b, c

    assert planner.measured_peak(step) == pytest.approx(8 * MIB, rel=0.01)

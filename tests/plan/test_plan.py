"""What is picked from predictions, what is said about it, and what a run makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from repertoire import train
from repertoire.errors import ConfigError
from repertoire.plan import Footprint, Plan, PlanRow, Work
from repertoire.recipe import format_bytes, parse_bytes

MIB = 2**20


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
    assert "rule='backprop', accumulate=2" in text
    assert "60.0 MiB" in text
    assert "would need 100 MiB" in text
    assert "batch normalisation" in text
    assert "costs accuracy" in plan_of(ROWS, 25).reason()
    assert "nothing has to be saved" in plan_of(ROWS, 200).reason()


def test_a_budget_that_nothing_fits_into_names_the_nearest():
    with pytest.raises(ConfigError, match=r"nothing fits into 5.00 MiB.*10.0 MiB \(rule='local:blocks=all'\).*10MiB"):
        _ = plan_of(ROWS, 5).chosen


def test_parameters_alone_can_be_too_much(options: dict, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"memory is 3KB, and the parameters of convnet.* alone take 5\.\d\d KiB"):
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
    with pytest.raises(ConfigError, match="leave out pipeline"):
        train.plan(**options, pipeline="all")


def test_augmentation_and_evaluation_count_too(options: dict):
    """In many small pieces a step can need less than to augment the whole batch."""
    found = train.plan(**{**options, "batch_size": 240, "augment": "simclr"})
    images = 240 * 8 * 8
    assert min(r.peak for r in found.rows) > images * (1 + 4 + 4), "bytes, the last batch, and the next one"


def test_nothing_is_decoded_for_a_plan(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(12):
            file = tmp_path / name / f"{i}.png"
            Image.new("RGB", (40, 40), (i, 0, 0)).save(file)
            # The header says how large it is, and there is nothing else.
            file.write_bytes(file.read_bytes()[:45])
        (tmp_path / name / "broken.png").write_bytes(b"no image")
    told = []
    found = train.plan(str(tmp_path), backbone="convnet:width=4,depth=2", rule="sam", report=told.append)
    assert (found.size, found.rows[0].accumulate) == (40, 1)
    assert told[0] == "rule sam"

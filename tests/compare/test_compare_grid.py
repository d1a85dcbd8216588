"""What varies, what it is called, and what is refused before anything is looked at."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from repertoire.compare._folder import Folder, fingerprint
from repertoire.compare._grid import make_grid, parse_assignments, written
from repertoire.errors import ConfigError, UnknownName
from repertoire.recipe import make_config

SHARED = {"data": "digits"}


def labels(vary, **options):
    return [member.label for member in make_grid(SHARED, vary, **options)[0].members]


def test_every_value_meets_every_other_and_the_first_of_each_is_the_baseline():
    grid, complaints = make_grid(SHARED, {"loss": "cross-entropy,supcon", "rule": "backprop,local:blocks=4"})
    assert not complaints
    assert [m.label for m in grid.members] == [
        "cross-entropy + backprop",
        "cross-entropy + local:blocks=4",
        "supcon + backprop",
        "supcon + local:blocks=4",
    ]
    assert grid.baseline is grid.members[0]
    assert grid.members[3].config.rule == "local:blocks=4"
    assert grid.varied == ("loss", "rule")


@pytest.mark.parametrize(
    "values", ["backprop,(local:blocks=4,auxiliary=linear)", ["backprop", "local:blocks=4,auxiliary=linear"]]
)
def test_a_value_with_commas(values):
    assert labels({"rule": values}) == ["backprop", "local:blocks=4,auxiliary=linear"]


def test_values_are_read_as_the_configuration_reads_them():
    assert labels({"lr": "0.10,none"}) == ["lr=0.1", "lr=none"]
    assert labels({"balanced": "true,false"}) == ["balanced=true", "balanced=false"]
    assert labels({"epochs": [1, 2]}) == ["epochs=1", "epochs=2"]
    assert labels({"optimizer": "sgd,adamw", "loss": "focal"}) == ["sgd", "adamw"], "what does not vary is not said"


def test_another_baseline():
    vary = {"loss": "cross-entropy,supcon", "lr": "0.1,0.05"}
    assert make_grid(SHARED, vary, {"loss": "supcon"})[0].baseline.label == "supcon + lr=0.1"
    with pytest.raises(ConfigError, match=r"baseline's lr is 1, which is not one of 0.1, 0.05"):
        make_grid(SHARED, vary, {"lr": 1})
    with pytest.raises(UnknownName, match="no field that varies is named 'los'; did you mean 'loss'"):
        make_grid(SHARED, vary, {"los": "supcon"})


@pytest.mark.parametrize(
    ("vary", "message"),
    [
        ({}, "two configurations or more"),
        ({"loss": "supcon"}, "two configurations or more"),
        ({"loss": "supcon,supcon"}, "loss has the value supcon twice"),
        ({"lr": "0.1,0.10"}, "lr has the value 0.1 twice"),
        ({"rule": "(local:blocks=2,auxiliary=linear),(local:auxiliary=linear,blocks=2)"}, "twice"),
        ({"rule": "backprop,local:blocks=4,auxiliary=linear"}, "options goes in parentheses"),
        ({"seed": "1,2"}, "seed cannot vary: .* with seeds, and the first with seed"),
        ({"data": "digits,shapes"}, "data cannot vary"),
        ({"loss": "supcon,"}, "empty value"),
        ({"loss": "a,(b"}, "parenthesis"),
    ],
)
def test_what_is_no_grid(vary, message):
    with pytest.raises(ConfigError, match=message):
        make_grid(SHARED, vary)


def test_an_unknown_field_suggests_the_nearest():
    with pytest.raises(UnknownName, match="no training option is named 'los'; did you mean 'loss'"):
        make_grid(SHARED, {"los": "a,b"})


def test_a_field_that_is_shared_and_varies():
    with pytest.raises(ConfigError, match="loss is given as 'focal' for all, and varies"):
        make_grid({**SHARED, "loss": "focal"}, {"loss": "supcon,focal"})


def test_members_that_cannot_be_configured_are_all_named():
    _, complaints = make_grid(SHARED, {"epochs": "1,0,-3", "lr": "0.1,x"})
    assert set(complaints) == {
        "epochs=1 + lr=x", "epochs=0 + lr=0.1", "epochs=0 + lr=x", "epochs=-3 + lr=0.1", "epochs=-3 + lr=x"
    }  # fmt: skip
    assert "epochs is '0'" in complaints["epochs=0 + lr=0.1"]


def test_assignments_of_the_command_line():
    assert parse_assignments(["loss=a,b", "batch-size=2"], "--vary") == {"loss": "a,b", "batch_size": "2"}
    assert parse_assignments(["rule=local:blocks=4"], "--baseline") == {"rule": "local:blocks=4"}
    with pytest.raises(ConfigError, match="--vary is 'loss'; write --vary FIELD=VALUE"):
        parse_assignments(["loss"], "--vary")
    with pytest.raises(ConfigError, match="names 'loss' twice"):
        parse_assignments(["loss=a", "loss=b"], "--vary")


def test_values_are_written_as_they_are_read():
    assert [written(v) for v in (0.1, None, False, ("a", "b"), "x:y=1")] == ["0.1", "none", "false", "(a,b)", "x:y=1"]


def test_what_changes_no_run_does_not_tell_comparisons_apart(tmp_path: Path):
    plain, late = (make_config(data="digits", cache=cache) for cache in ("all", "none"))
    assert fingerprint(plain) == fingerprint(late) != fingerprint(make_config(data="digits", strategy="fsdp"))
    folder = Folder(tmp_path)
    folder.open(plain, ("loss",), 1, "digest")
    assert folder.is_of(late, ("loss",), 1)
    manifest = json.loads(folder.manifest_file.read_text())
    del manifest["shared"]["strategy"], manifest["shared"]["cache"]  # begun by an older version
    folder.manifest_file.write_text(json.dumps(manifest))
    assert folder.is_of(plain, ("loss",), 1)
    assert not folder.is_of(make_config(data="digits", strategy="fsdp"), ("loss",), 1)

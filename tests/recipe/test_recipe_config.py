from __future__ import annotations

from pathlib import Path

import pytest

from repertoire.errors import ConfigError, UnknownName
from repertoire.recipe import TrainConfig, make_config, read_config, write_config


def test_a_configuration_survives_its_file(tmp_path: Path):
    config = make_config(data="digits", lr=0.3, ema=0.99, track=("tensorboard",), precision=32, size=None)
    write_config(config, tmp_path / "c.yaml")
    assert make_config(**read_config(tmp_path / "c.yaml")) == config


def test_unknown_options_suggest_the_nearest():
    with pytest.raises(UnknownName, match="here it is called 'epochs'"):
        make_config(data="digits", epoch=3)


def test_all_bad_values_are_named_at_once():
    with pytest.raises(ConfigError) as caught:
        make_config(data="digits", epochs=0, optimizer="adam", ema=1.5)
    for part in ("epochs is 0", "optimizer is 'adam'", "ema is 1.5"):
        assert part in str(caught.value)


def test_data_is_needed():
    with pytest.raises(ConfigError, match="data is missing"):
        make_config(epochs=3)


@pytest.mark.parametrize("text", ["- a\n- b", "just words", "a: [1, 2", "\x00", "1: 2"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match="yaml"):
        read_config(tmp_path / "c.yaml")


def test_a_file_is_never_a_program(tmp_path: Path):
    (tmp_path / "c.yaml").write_text("data: !!python/object/apply:os.getcwd []")
    with pytest.raises(ConfigError, match=r"c\.yaml"):
        read_config(tmp_path / "c.yaml")


def test_an_empty_file_sets_nothing_and_hyphens_are_forgiven(tmp_path: Path):
    (tmp_path / "c.yaml").write_text("")
    assert read_config(tmp_path / "c.yaml") == {}
    (tmp_path / "c.yaml").write_text("batch-size: 64")
    assert read_config(tmp_path / "c.yaml") == {"batch_size": 64}


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match="no configuration file"):
        read_config(tmp_path / "none.yaml")


def test_every_field_says_what_it_is():
    assert all(field.description for field in TrainConfig.model_fields.values())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs: 1\nepochs: 2", "epochs is set twice"),
        ("data: a\nbatch-size: 8\nbatch_size: 9", "sets batch_size twice"),
        ("data: {a: 1, a: 2}", "a is set twice"),
    ],
)
def test_an_option_is_not_set_twice(tmp_path: Path, text: str, message: str):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_config(tmp_path / "c.yaml")


@pytest.mark.parametrize("name", ["epochs", "ema", "patience", "lr", "precision", "backbone", "track"])
@pytest.mark.parametrize("value", [True, False])
def test_a_truth_value_is_no_number_and_no_text(name: str, value: bool):
    with pytest.raises(ConfigError, match=f"{name} is {value}: yes, no, on and off are true and false"):
        make_config(data="digits", **{name: value})


def test_one_of_several_needs_no_list():
    assert make_config(data="digits", track="wandb").track == ("wandb",)
    assert make_config(data="digits", track="tensorboard, mlflow", plugins="mine").track == ("tensorboard", "mlflow")
    with pytest.raises(ConfigError, match=r"track\.0 is 'aim'"):
        make_config(data="digits", track="aim")

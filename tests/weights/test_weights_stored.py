"""Networks that are stored in a form of their own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from repertoire.errors import CheckpointError, ConfigError, UnknownName
from repertoire.weights import Stored, form, forms


def network(width: int = 4) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, width, 3),
        nn.BatchNorm2d(width),
        nn.Conv2d(width, width, 3, groups=width),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, 2),
    ).eval()


def test_layers_take_the_width_of_their_tensors():
    wide, images = network(7), torch.randn(3, 1, 8, 8)
    found = Stored("shaped", wide.state_dict()).build(network())
    torch.testing.assert_close(found(images), wide(images), rtol=0, atol=0)
    assert found[0].out_channels == found[1].num_features == found[2].groups == found[5].in_features == 7
    assert all(parameter.requires_grad for parameter in found.parameters())


def test_what_has_no_width_to_change_is_refused():
    with pytest.raises(CheckpointError, match="LayerNorm, cannot take the shapes weight"):
        Stored("shaped", nn.LayerNorm(5).state_dict()).build(nn.LayerNorm(4))
    with pytest.raises(CheckpointError, match="a convolution of 2 groups"):
        Stored("shaped", nn.Conv2d(8, 8, 1, groups=2).state_dict()).build(nn.Conv2d(4, 4, 1, groups=2))
    with pytest.raises(CheckpointError, match=r"do not fit the network: .*extra"):
        Stored("dense", {"extra": torch.zeros(1)}).build(nn.Linear(1, 1))


def test_a_file_gives_back_what_was_written_and_its_size(tmp_path):
    stored = Stored("shaped", network(5).state_dict(), {"out_features": 5})
    stored.save(tmp_path / "net.safetensors")
    assert (tmp_path / "net.safetensors").stat().st_size == stored.bytes
    again = Stored.load(tmp_path / "net.safetensors")
    assert (again.form, again.settings) == (stored.form, stored.settings)
    images = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(again.build(network())(images), stored.build(network())(images), rtol=0, atol=0)


def test_files_that_hold_none_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="there is no file"):
        Stored.load(tmp_path / "none")
    (tmp_path / "text").write_text("words")
    with pytest.raises(CheckpointError, match="cannot be read as a stored network"):
        Stored.load(tmp_path / "text")
    from repertoire.weights import save_state

    save_state({"a": torch.zeros(1)}, tmp_path / "plain")
    with pytest.raises(CheckpointError, match="holds no stored network"):
        Stored.load(tmp_path / "plain")
    with pytest.raises(UnknownName, match="shaped"):
        Stored("shape", {}).build(nn.Linear(1, 1))


def test_a_name_is_taken_once():
    assert {"dense", "shaped"} <= set(forms())
    with pytest.raises(ValueError, match="'dense' is already"):
        form("dense")(network)

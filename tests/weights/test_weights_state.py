"""States in files."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from repertoire.errors import CheckpointError, ConfigError
from repertoire.weights import LazyState, save_state


def state() -> dict[str, torch.Tensor]:
    return {
        "w": torch.randn(3, 4),
        "half": torch.randn(2).to(torch.bfloat16),
        "steps": torch.tensor(7),
        "empty": torch.zeros(0, 3),
        "turned": torch.randn(4, 3).T,
        "part": torch.randn(100)[3:5],
    }


def test_what_is_saved_is_read_back(tmp_path):
    written = state()
    save_state(written, tmp_path / "new" / "weights.safetensors")
    lazy = LazyState(tmp_path / "new" / "weights.safetensors")
    assert set(lazy) == set(written)
    assert len(lazy) == 6
    assert "w" in lazy
    assert "x" not in lazy
    for name, tensor in written.items():
        torch.testing.assert_close(lazy[name], tensor, rtol=0, atol=0)
        assert lazy.shape(name) == tuple(tensor.shape)
    with pytest.raises(KeyError):
        lazy["x"]
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["weights.safetensors"]
    assert (tmp_path / "new" / "weights.safetensors").stat().st_size < 1000  # a view is not saved with its whole tensor


def test_a_lazy_state_loads_into_a_model(tmp_path):
    model, other = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    save_state(model.state_dict(), tmp_path / "a")
    other.load_state_dict(dict(LazyState(tmp_path / "a")))
    torch.testing.assert_close(other.weight, model.weight, rtol=0, atol=0)


def test_tied_weights_are_saved(tmp_path):
    shared = torch.randn(3, 3)
    save_state({"a": shared, "b": shared, "c": shared[:1]}, tmp_path / "w")
    found = load_file(tmp_path / "w")
    torch.testing.assert_close(found, {"a": shared, "b": shared, "c": shared[:1]}, rtol=0, atol=0)


def test_files_that_are_no_state(tmp_path):
    with pytest.raises(ConfigError, match="no file"):
        LazyState(tmp_path / "missing")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(CheckpointError, match="text cannot be read as safetensors"):
        LazyState(tmp_path / "text")
    save_file(state() | {"turned": torch.zeros(1), "part": torch.zeros(1)}, tmp_path / "whole")
    content = (tmp_path / "whole").read_bytes()
    for length in (0, 4, 100, len(content) - 1):
        (tmp_path / "short").write_bytes(content[:length])
        with pytest.raises(CheckpointError, match="short cannot be read"):
            LazyState(tmp_path / "short")


def test_a_failed_write_leaves_what_was_there(tmp_path):
    save_state({"w": torch.ones(2)}, tmp_path / "w")
    with pytest.raises(AttributeError):
        save_state({"w": "no tensor"}, tmp_path / "w")
    assert [file.name for file in tmp_path.iterdir()] == ["w"]
    torch.testing.assert_close(LazyState(tmp_path / "w")["w"], torch.ones(2))

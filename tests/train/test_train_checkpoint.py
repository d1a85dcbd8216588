from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from repertoire.errors import CheckpointError
from repertoire.train import _checkpoint
from repertoire.train._progress import Progress


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = _checkpoint.step_path(tmp_path, 7)
    _checkpoint.save(path, {"a.w": torch.arange(6.0).view(2, 3), "a.n": torch.tensor(3)}, {"step": 7})
    return path


def test_what_is_saved_is_loaded(saved: Path):
    checkpoint = _checkpoint.load(saved)
    assert torch.equal(checkpoint.part("a")["w"], torch.arange(6.0).view(2, 3))
    assert checkpoint.part("a")["n"] == 3
    assert checkpoint.values == {"step": 7}


def test_a_checkpoint_cut_short_at_any_byte_is_detected(saved: Path, tmp_path: Path):
    data = saved.read_bytes()
    cut = tmp_path / "cut.safetensors"
    for length in range(len(data)):
        cut.write_bytes(data[:length])
        with pytest.raises(CheckpointError):
            _checkpoint.load(cut)


def test_any_changed_byte_is_detected(saved: Path, tmp_path: Path):
    data = saved.read_bytes()
    changed = tmp_path / "changed.safetensors"
    for position in range(len(data)):
        changed.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        try:
            checkpoint = _checkpoint.load(changed)
        except CheckpointError:
            continue
        # White space in the header, and the digest's own key, may change without changing what is read.
        assert torch.equal(checkpoint.part("a")["w"], torch.arange(6.0).view(2, 3))
        assert checkpoint.values == {"step": 7}


def test_the_newest_whole_checkpoint_is_found(tmp_path: Path):
    for step in (1, 2, 3):
        _checkpoint.save(_checkpoint.step_path(tmp_path, step), {"w": torch.tensor(step)}, {"step": step})
    newest = _checkpoint.step_path(tmp_path, 3)
    newest.write_bytes(newest.read_bytes()[:-1])
    path, checkpoint, complaints = _checkpoint.latest(tmp_path)
    assert path == _checkpoint.step_path(tmp_path, 2)
    assert checkpoint.values == {"step": 2}
    assert len(complaints) == 1
    assert "damaged" in complaints[0]


def test_no_checkpoint_says_so(tmp_path: Path):
    with pytest.raises(CheckpointError, match="no checkpoint to go on from"):
        _checkpoint.latest(tmp_path)


def test_prune_keeps_the_newest(tmp_path: Path):
    for step in (5, 10, 100):
        _checkpoint.save(_checkpoint.step_path(tmp_path, step), {}, {})
    (tmp_path / "best.safetensors").touch()
    _checkpoint.prune(tmp_path, 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "best.safetensors", "step-000000010.safetensors", "step-000000100.safetensors",
    ]  # fmt: skip


def test_a_full_disk_is_said_in_words_and_leaves_the_old_checkpoint(saved: Path):
    import resource
    import signal

    from repertoire.errors import RunError

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(RunError, match="no space left"):
            _checkpoint.save(saved, {"w": torch.zeros(10_000)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert _checkpoint.load(saved).values == {"step": 7}


def test_a_newer_format_and_a_foreign_file_are_told_apart(tmp_path: Path, saved: Path, monkeypatch: pytest.MonkeyPatch):
    save_file({"w": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(CheckpointError, match="not a checkpoint of Repertoire"):
        _checkpoint.load(tmp_path / "foreign.safetensors")
    monkeypatch.setattr(_checkpoint, "FORMAT", 0)
    with pytest.raises(CheckpointError, match="newer version"):
        _checkpoint.load(saved)


def test_tied_weights_are_saved_twice_not_refused(tmp_path: Path):
    weight = torch.randn(3)
    _checkpoint.save(tmp_path / "t.safetensors", {"a": weight, "b": weight, "c": weight[1:]}, {})
    assert torch.equal(_checkpoint.load(tmp_path / "t.safetensors").tensors["c"], weight[1:])


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False) | st.text(max_size=5)
    | st.integers(0, 4).map(lambda n: torch.arange(n)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


def _same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(_same, a, b))
    return a == b


@given(st.dictionaries(st.integers(0, 9) | st.text(max_size=3), values, max_size=4))
@settings(max_examples=50, deadline=None)
def test_any_nested_state_comes_back(state: dict):
    import json

    tensors: dict[str, torch.Tensor] = {}
    flat = json.loads(json.dumps(_checkpoint.flatten(state, "s", tensors)))
    assert _same(_checkpoint.unflatten(flat, tensors), state)


@pytest.mark.parametrize("format", ["abc", "", "-1", "1.0"])
def test_a_format_that_is_no_number_is_damage(tmp_path: Path, format: str):
    path = tmp_path / "odd.safetensors"
    save_file({"w": torch.zeros(1)}, path, {"format": format, "values": "{}", "digest": "0"})
    with pytest.raises(CheckpointError, match="damaged"):
        _checkpoint.load(path)


def test_progress_of_a_newer_version_is_named():
    known = Progress(epoch=2, best={"accuracy": 0.5})
    assert Progress.stored(asdict(known)) == known
    with pytest.raises(CheckpointError, match="mood, which a newer version"):
        Progress.stored({**asdict(known), "mood": 1})

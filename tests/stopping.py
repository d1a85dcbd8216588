"""Work that is stopped when it keeps something, or while it does, and gone on with; runs that crash."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from repertoire.weights import Progress, Stored

__all__ = ["Crash", "Killed", "Stopping", "crash", "goes_on", "same"]


class Crash(Exception):
    """An error that nothing raises but `crash`."""


@contextmanager
def crash(owner: Any, name: str = "step", *, after: int) -> Iterator[None]:
    """What is called within ends at a call of a method of `owner`, behind so many that do their work."""
    original, calls = getattr(owner, name), 0

    def crashing(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > after:
            raise Crash
        return original(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, crashing)
        with pytest.raises(Crash):
            yield


class Killed(BaseException):
    """What no handler takes for an error."""


class Stopping(Progress):
    """Ends its process, as it were, behind the time that it has kept something so often; or while it does."""

    def __init__(self, folder: Path, times: int, during: bool) -> None:
        super().__init__(folder, "key")
        self.times, self.during = times, during

    def save(self, name: str, tensors: Mapping[str, Tensor], told: Mapping[str, Any] | None = None) -> None:
        self.times -= 1
        if self.times == 0 and self.during:
            self.folder.mkdir(exist_ok=True)
            (self.folder / f".{name}.safetensors.x.tmp").write_bytes(b"half")
            raise Killed
        super().save(name, tensors, told)
        if self.times == 0:
            raise Killed


def same(first: Any, second: Any) -> None:
    """States, or stored networks, of the same bits."""
    if isinstance(first, Stored):
        assert first.form == second.form
        assert dict(first.settings) == dict(second.settings)
        first, second = first.tensors, second.tensors
    assert list(first) == list(second)
    for name, value in first.items():
        assert value.dtype == second[name].dtype, name
        assert torch.equal(value, second[name]), name


def goes_on(work: Callable[[Progress | None], Any], folder: Path, *, during: bool = False, every: int = 1) -> int:
    """Stops work at every so-manieth time that it keeps something, and goes on: to the same bits, and leaves nothing.

    Returns:
        How often it keeps something.
    """
    expected = work(None)
    stops, lines = 1, []
    while True:
        place = folder / str(stops)
        try:
            same(work(Stopping(place, stops, during)), expected)
        except Killed:
            pass
        else:
            return stops - 1
        begun = sorted(file.name for file in place.glob("*.safetensors"))
        assert begun or (during and stops == 1)
        progress = Progress(place, "key", lines.append)
        same(work(progress), expected)
        assert len(lines) == (1 if begun else 0), lines
        lines.clear()
        progress.clear()
        assert not place.exists()
        stops += every

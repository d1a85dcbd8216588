"""What a long merge has done so far, kept on the disk, so that one that was killed goes on where it was."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor

from repertoire.files import write_bytes

__all__ = ["Kept", "Progress"]

EVERY = 10.0
"""Seconds between two times that something in the middle of its work is kept."""


@dataclass(frozen=True)
class Kept:
    """What was kept under a name.

    Attributes:
        tensors: on the CPU, bit for bit as they were.
        told: what went with them, of which JSON can be made; numbers come back as they were.
    """

    tensors: dict[str, Tensor]
    told: dict[str, Any]


class Progress:
    """A folder in which a long merge keeps what it has done, part by part and in the middle of a part.

    Each part is one file, written whole or not at all, so that whoever is killed at any instant finds the last of them.
    What is in it is everything that the rest depends on: who goes on gets the same bits as who was never stopped, on
    the same machine with as many threads. Files of another `key` count as not there.

    Args:
        folder: where to keep; made when the first thing is kept. None keeps nothing, and finds nothing.
        key: of what is computed: a digest of all that decides the result.
        report: is told when something that was kept is taken up again.

    Example:
        >>> import tempfile
        >>> import torch
        >>> from repertoire.weights import Progress
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     first = Progress(f"{folder}/kept", "a").part("sum", lambda: {"x": torch.ones(2)})
        ...     again = Progress(f"{folder}/kept", "a").part("sum", lambda: {"x": torch.zeros(2)})
        ...     other = Progress(f"{folder}/kept", "b").part("sum", lambda: {"x": torch.zeros(2)})
        >>> again["x"], other["x"]
        (tensor([1., 1.]), tensor([0., 0.]))
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None = None,
        key: str = "",
        report: Callable[[str], None] | None = None,
    ) -> None:
        self.folder = None if folder is None else Path(folder)
        self.key = key
        self._report = report
        self._last = time.monotonic() if self.folder is not None else 0.0

    def part(self, name: str, make: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """What was kept under a name, which comes back on the CPU, or what is made now, and kept."""
        if (found := self.load(name)) is not None:
            return found.tensors
        made = dict(make())
        self.save(name, made)
        return made

    def due(self) -> bool:
        """Whether it is time to keep something in the middle of its work."""
        return self.folder is not None and time.monotonic() - self._last >= EVERY

    def save(self, name: str, tensors: Mapping[str, Tensor], told: Mapping[str, Any] | None = None) -> None:
        """Keeps tensors, and what goes with them, under a name, in the place of what was there.

        Raises:
            RunError: the disk is full. What was there before still is.
        """
        if self.folder is None:
            return
        held = {key: value.detach().cpu().clone().contiguous() for key, value in tensors.items()}
        about = {"key": self.key, "told": json.dumps(dict(told or {}))}
        write_bytes(self.folder / f"{name}.safetensors", serialise(held, metadata=about))
        self._last = time.monotonic()

    def load(self, name: str) -> Kept | None:
        """What was kept under a name; None where there is nothing, or it belongs to something else, or is damaged."""
        if self.folder is None or not (file := self.folder / f"{name}.safetensors").is_file():
            return None
        try:
            with safe_open(str(file), framework="pt") as opened:
                about = opened.metadata() or {}
                if about.get("key") != self.key:
                    return None
                names = opened.keys()
                tensors = {key: opened.get_tensor(key) for key in names}
                kept = Kept(tensors, json.loads(about["told"]))
        except (OSError, ValueError, KeyError, SafetensorError):
            return None
        if self._report is not None:
            self._report(f"goes on with what was kept in {self.folder}")
            self._report = None
        return kept

    def holds(self) -> bool:
        """Whether there is something to go on with."""
        if self.folder is None:
            return False
        for file in self.folder.glob("*.safetensors"):
            with contextlib.suppress(OSError, SafetensorError), safe_open(str(file), framework="pt") as opened:
                if (opened.metadata() or {}).get("key") == self.key:
                    return True
        return False

    def clear(self) -> None:
        """Removes what was kept, once it is no longer needed; what others put into the folder stays."""
        if self.folder is None:
            return
        for file in (*self.folder.glob("*.safetensors"), *self.folder.glob(".*.safetensors.*.tmp")):
            file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()

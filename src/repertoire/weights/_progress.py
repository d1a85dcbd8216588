"""What long work on trained networks has done so far, kept on the disk, so that who was killed goes on where it was."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor, nn

from repertoire.errors import CheckpointError, ConfigError, ascii_path
from repertoire.files import write_bytes

__all__ = ["Kept", "Learning", "Progress", "digest_of_states"]

EVERY = 10.0
"""Seconds between two times that something in the middle of its work is kept, where keeping it takes no time."""

_FORMAT = "2 "
"""What keys begin with, so that what an older version kept in another way counts as another's."""

T = TypeVar("T")


@dataclass(frozen=True)
class Kept:
    """What was kept under a name.

    Attributes:
        tensors: on the CPU, bit for bit as they were.
        told: what went with them, of which JSON can be made; numbers come back as they were.

    Example:
        >>> import tempfile
        >>> import torch
        >>> from repertoire.weights import Progress
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     progress = Progress(folder, "a")
        ...     progress.save("x", {"w": torch.ones(2)}, {"step": 3})
        ...     progress.load("x")
        Kept(tensors={'w': tensor([1., 1.])}, told={'step': 3})
    """

    tensors: dict[str, Tensor]
    told: dict[str, Any]


class Progress:
    """A folder in which long work keeps what it has done, part by part and in the middle of a part.

    Each part is one file, written whole or not at all, so that whoever is killed at any instant finds the last of them.
    What is in it is everything that the rest depends on: who goes on gets the same bits as who was never stopped, on
    the same machine with as many threads. Files of another `key`, and damaged ones, count as not there.

    What can be named is kept in one go: tensors with `part`, numbers with `value`. What is gone through piece by piece
    goes through `through`, and a training loop has its state in a `Learning`.

    Args:
        folder: where to keep; made when the first thing is kept. None keeps nothing, and finds nothing.
        key: of what is computed: a digest of all that decides the result.
        report: is told when something that was kept is taken up again, or cannot be.

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
        self._went_on = False
        self._made: set[str] = set()
        self._last = time.monotonic() if self.folder is not None else 0.0
        self._took = 0.0

    # What can be named.

    def part(self, name: str, make: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """What was kept under a name, which comes back on the CPU, or what is made now, and kept."""
        if (found := self.load(name)) is not None:
            return found.tensors
        made = dict(make())
        self.save(name, made)
        return made

    def value(self, name: str, make: Callable[[], T]) -> T:
        """The same for what JSON can hold: numbers, text, lists of them and dictionaries."""
        if (found := self.load(name)) is not None:
            value: T = found.told["value"]
            return value
        made = make()
        self.save(name, {}, {"value": made})
        return made

    def scored(self, score: Callable[[Any], float]) -> Callable[[Any], float]:
        """A score that is kept for every state, or network, that it was asked about; these it must leave as they are.

        Which it was asked about is known by the content, so that the order in which an operator asks does not matter.
        """
        if self.folder is None:
            return score

        def remembered(given: Any) -> float:
            state = given.state_dict() if isinstance(given, nn.Module) else given
            return self.value(f"score-{digest_of_states([state])[:32]}", lambda: float(score(given)))

        return remembered

    # What is in the middle of its work.

    def through(
        self,
        name: str,
        items: Iterable[T],
        state: Callable[[], tuple[Mapping[str, Tensor], Mapping[str, Any]]],
        put_back: Callable[[Kept], None],
    ) -> Iterator[T]:
        """Goes through items in their order, of which what was looked at before is passed over.

        Args:
            name: of the part.
            items: the same at every call.
            state: gives everything that looking at the items has changed, once it is done with the last one that it
                was given: tensors, and what goes with them.
            put_back: is given what `state` gave, before the first item.

        Yields:
            The items that are left; none where all were looked at.
        """
        passed, whole = 0, False
        if (kept := self.load(name)) is not None:
            put_back(kept)
            passed, whole = kept.told["passed"], kept.told["whole"]
        if whole:
            return
        left = islice(items, passed, None)
        coming = next(left, None)
        while coming is not None:
            yield coming
            passed += 1
            # Looked up beforehand, so that who goes on from what is kept in the middle has an item left.
            coming = next(left, None)
            if self.folder is not None and (coming is None or self.due()):
                tensors, told = state()
                self.save(name, tensors, {**told, "passed": passed, "whole": coming is None})

    def due(self) -> bool:
        """Whether it is time to keep something in the middle of its work.

        The longer keeping takes, the less often: never more than a twentieth of the time goes into it.
        """
        return self.folder is not None and time.monotonic() - self._last >= EVERY * (1 + 2 * self._took)

    # Files.

    def save(self, name: str, tensors: Mapping[str, Tensor], told: Mapping[str, Any] | None = None) -> None:
        """Keeps tensors, and what goes with them, under a name, in the place of what was there.

        Raises:
            RunError: the disk is full. What was there before still is.
        """
        if self.folder is None:
            return
        begun = time.monotonic()
        held = {key: value.detach().cpu().clone().contiguous() for key, value in tensors.items()}
        # The file has an order of its own.
        text = json.dumps({"names": list(held), "told": dict(told or {})})
        about = {"key": _FORMAT + self.key, "told": text, "sum": str(_checksum(held, text))}
        write_bytes(self.folder / f"{name}.safetensors", serialise(held, metadata=about))
        self._made.add(name)
        self._last = time.monotonic()
        self._took = self._last - begun

    def load(self, name: str) -> Kept | None:
        """What was kept under a name; None where there is nothing, or it belongs to something else, or is damaged."""
        if self.folder is None or not (file := self.folder / f"{name}.safetensors").is_file():
            return None
        try:
            with safe_open(str(file), framework="pt") as opened:
                about = opened.metadata() or {}
                if about.get("key") != _FORMAT + self.key:
                    return None
                found = json.loads(about["told"])
                tensors = {key: opened.get_tensor(key) for key in found["names"]}
            if about.get("sum") != str(_checksum(tensors, about["told"])):
                raise ValueError("other bytes than were written")
            kept = Kept(tensors, found["told"])
        except (OSError, ValueError, KeyError, SafetensorError):
            self._discard(file, "is damaged")
            return None
        if not self._went_on and name not in self._made:
            self._say(f"goes on with what was kept in {self._shown()}")
            self._went_on = True
        return kept

    def sift(self) -> Progress:
        """Removes what cannot be gone on with, and says so: what belongs to other work, and what cannot be read."""
        if self.folder is None:
            return self
        foreign = []
        for file in sorted(self.folder.glob("*.safetensors")):
            key = _key_of(file)
            if key is None:
                self._discard(file, "is damaged")
            elif key != _FORMAT + self.key:
                foreign.append(file)
        if foreign:
            self._say(
                f"what was kept in {self._shown()} is of other runs, data or options, or of another version, and is "
                "discarded: this begins anew"
            )
        for file in foreign:
            file.unlink(missing_ok=True)
        return self

    def holds(self) -> bool:
        """Whether there is something to go on with."""
        if self.folder is None:
            return False
        return any(_key_of(file) == _FORMAT + self.key for file in self.folder.glob("*.safetensors"))

    def forget(self, *names: str) -> None:
        """Removes what was kept under some names, which something that was kept since has made needless."""
        for name in names:
            if self.folder is not None:
                (self.folder / f"{name}.safetensors").unlink(missing_ok=True)

    def clear(self) -> None:
        """Removes what was kept, once it is no longer needed; what others put into the folder stays."""
        if self.folder is None:
            return
        for file in (*self.folder.glob("*.safetensors"), *self.folder.glob(".*.safetensors.*.tmp")):
            file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    @contextlib.contextmanager
    def unless_refused(self) -> Iterator[None]:
        """Clears what was kept where the work is refused: the same command would be refused again."""
        try:
            yield
        except (CheckpointError, ConfigError):
            self.clear()
            raise

    def _discard(self, file: Path, why: str) -> None:
        self._say(f"{ascii_path(file.name)} in {self._shown()} {why} and is discarded: its part begins anew")
        file.unlink(missing_ok=True)

    def _shown(self) -> str:
        return ascii_path(str(self.folder))

    def _say(self, line: str) -> None:
        if self._report is not None:
            self._report(line)


@dataclass
class Learning:
    """Everything that the steps of a training loop depend on, beside the samples and where among them it is.

    Attributes:
        tensors: what the steps change in place, by name: parameters, and buffers such as running statistics.
        optimizer: of the parameters.
        schedule: of its learning rate, where there is one.
        generators: random numbers that are drawn on the CPU. Those that layers draw from torch are part of it anyway.

    Example:
        >>> import tempfile
        >>> import torch
        >>> from repertoire.weights import Learning, Progress
        >>> def learned(folder, steps):
        ...     progress, net = Progress(folder), torch.nn.Linear(1, 1)
        ...     torch.nn.init.ones_(net.weight)
        ...     learning = Learning(dict(net.named_parameters()), torch.optim.Adam(net.parameters(), lr=0.1))
        ...     begin = 0
        ...     if (kept := progress.load("net")) is not None:
        ...         learning.put_back(kept)
        ...         begin = kept.told["step"]
        ...     for step in range(begin, steps):
        ...         learning.optimizer.zero_grad()
        ...         net(torch.ones(1, 1)).sum().backward()
        ...         learning.optimizer.step()
        ...         tensors, told = learning.state()
        ...         progress.save("net", tensors, {**told, "step": step + 1})
        ...     return net.weight.item()
        >>> with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        ...     _ = learned(one, 3)  # and was stopped
        ...     learned(one, 5) == learned(other, 5)
        True
    """

    tensors: Mapping[str, Tensor]
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler | None = None
    generators: Sequence[torch.Generator] = field(default_factory=tuple)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All of it as tensors, and what goes with them."""
        found = {f"tensor.{name}": value for name, value in self.tensors.items()}
        given = self.optimizer.state_dict()
        for number, each in given["state"].items():
            found |= {f"optimizer.{number}.{name}": torch.as_tensor(value) for name, value in each.items()}
        found |= {f"random.{place}": each.get_state() for place, each in enumerate(self.generators)}
        found["random.torch"] = torch.get_rng_state()
        found |= {f"random.{device}": torch.cuda.get_rng_state(device) for device in self._devices()}
        told = {"rates": [group["lr"] for group in given["param_groups"]]}
        return found, told | ({} if self.schedule is None else {"schedule": self.schedule.state_dict()})

    @torch.no_grad()
    def put_back(self, kept: Kept) -> None:
        """Brings everything back to where it was."""
        for name, value in self.tensors.items():
            value.copy_(kept.tensors[f"tensor.{name}"])
        held: dict[int, dict[str, Tensor]] = {}
        for key, value in kept.tensors.items():
            if key.startswith("optimizer."):
                number, name = key.removeprefix("optimizer.").split(".", 1)
                held.setdefault(int(number), {})[name] = value
        groups = self.optimizer.state_dict()["param_groups"]
        rated = [{**group, "lr": rate} for group, rate in zip(groups, kept.told["rates"], strict=True)]
        self.optimizer.load_state_dict({"state": held, "param_groups": rated})
        if self.schedule is not None:
            self.schedule.load_state_dict(kept.told["schedule"])
        for place, each in enumerate(self.generators):
            each.set_state(kept.tensors[f"random.{place}"])
        torch.set_rng_state(kept.tensors["random.torch"])
        for device in self._devices():
            torch.cuda.set_rng_state(kept.tensors[f"random.{device}"], device)

    def _devices(self) -> list[torch.device]:
        found = {value.device for value in self.tensors.values() if value.device.type == "cuda"}
        return sorted(found, key=str)


def digest_of_states(states: Iterable[Mapping[str, Tensor]], told: object = None) -> str:
    """A digest of the names, kinds and bits of the tensors of states, and of whatever else `repr` tells.

    Args:
        states: name to tensor; their order counts, and that of the names.
        told: what else the digest is to depend on; something whose `repr` says all there is to it.

    Returns:
        64 hexadecimal digits.

    Example:
        >>> import torch
        >>> from repertoire.weights import digest_of_states
        >>> digest_of_states([{"w": torch.zeros(1)}]) == digest_of_states([{"w": -torch.zeros(1)}])
        False
    """
    found = hashlib.sha256(repr(told).encode())
    for state in states:
        for name, value in state.items():
            found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            found.update(_bytes(value.detach().cpu().contiguous()))
    return found.hexdigest()


def _key_of(file: Path) -> str | None:
    """Whose a file is; None where it cannot be read."""
    with contextlib.suppress(OSError, SafetensorError), safe_open(str(file), framework="pt") as opened:
        return str((opened.metadata() or {}).get("key", ""))
    return None


def _checksum(tensors: Mapping[str, Tensor], text: str) -> int:
    found = zlib.crc32(text.encode())
    for value in tensors.values():
        found = zlib.crc32(_bytes(value), found)
    return found


def _bytes(value: Tensor) -> memoryview:
    return value.reshape(-1).view(torch.uint8).numpy().data

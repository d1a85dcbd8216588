"""A memory of samples of earlier stages, within a budget."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from repertoire.data import FeatureSet, ImageSet, Samples, step_seed
from repertoire.errors import CheckpointError, ConfigError, DataError, ascii_path
from repertoire.files import atomic_path
from repertoire.methods import Method
from repertoire.recipe import parse_bytes

__all__ = ["Keep", "Memory", "Store", "copied", "stacked"]

Keep = Literal["reservoir", "herding", "typical"]
Store = Literal["whole", "patches"]
"""In which form samples are kept: as they are, or as some patches of each (`repertoire.protocols.Patches`)."""
FeaturesOf = Callable[[Samples], np.ndarray]
MethodOf = Callable[[], Method]
_OF_A_LABEL = 8
"""Bytes of a label."""


class Memory:
    """Samples of earlier stages, copied, and never more than a budget allows.

    - "reservoir" keeps a uniform sample of everything seen, whatever its class: Vitter, *Random Sampling with a
      Reservoir* (1985), as in Chaudhry et al., *On Tiny Episodic Memories in Continual Learning* (2019).
    - "herding" keeps equally many of every class, those whose mean feature is nearest to that of the class: Rebuffi et
      al., *iCaRL: Incremental Classifier and Representation Learning* (2017). When classes are added, the first ones of
      each class stay, which were chosen first.
    - "typical" keeps equally many of every class, spread evenly over the distances from its mean feature, without the
      tenth that is furthest: Mundt et al., *A Wholistic View of Continual Learning with Deep Neural Networks: Forgotten
      Lessons and the Bridge to Active and Open World Learning* (2020), where an open-set score says how far out a
      sample is; the order is that of any score that falls with this distance.

    Args:
        budget: a number of samples, or an amount such as "20MB" of inputs and labels; 0 for nothing.
        keep: "reservoir" (default), "herding" or "typical".
        seed: of the reservoir.

    Attributes:
        samples: what is kept, None before anything was seen; labels are positions in the classes of the last stage.
        seen: how many samples there have been.

    Raises:
        ConfigError: a budget that is no amount, or another way to choose.

    Example:
        >>> import numpy as np
        >>> from repertoire.data import FeatureSet
        >>> from repertoire.protocols import Memory
        >>> memory = Memory(4)
        >>> for stage in range(3):
        ...     x = np.full((10, 2), stage, dtype=np.float32)
        ...     keys = np.arange(10, dtype=np.uint64)
        ...     memory.update(FeatureSet(x, np.full(10, stage), [str(i) for i in range(10)], ("a", "b", "c"), keys))
        >>> len(memory.samples), memory.seen, memory.nbytes
        (4, 30, 64)
    """

    def __init__(self, budget: int | str = 200, keep: Keep = "reservoir", seed: int = 0) -> None:
        if keep not in ("reservoir", "herding", "typical"):
            raise ConfigError(f"keep must be 'reservoir', 'herding' or 'typical', found {keep!r}")
        self.most, self.most_bytes = _budget(budget)
        self.keep: Keep = keep
        self.seed = seed
        self.samples: Any = None
        self.seen = 0
        self._rank = np.zeros(0, dtype=np.int64)

    def __len__(self) -> int:
        return 0 if self.samples is None else len(self.samples)

    @property
    def nbytes(self) -> int:
        """Bytes of the inputs and labels that are kept."""
        return len(self) * self._size(self.samples) if len(self) else 0

    def recall(self, method_of: MethodOf | None = None) -> Any:
        """What is replayed, as samples like those that were seen; None where nothing is kept.

        Args:
            method_of: gives the method as it is now, for a memory that rebuilds what it keeps; asked only by one that
                does.
        """
        return self.samples

    def update(
        self, samples: Samples, features_of: FeaturesOf | None = None, method_of: MethodOf | None = None
    ) -> None:
        """Looks at the samples of a stage once, keeps some of them, and lets others go.

        Args:
            samples: of the stage; their classes begin with those of the stages before.
            features_of: samples to features float `[N, d]`; all but a reservoir need it.
            method_of: as for `recall`.

        Raises:
            ConfigError: no features, where they are needed.
            DataError: samples of another kind or shape, or without classes.
        """
        if samples.kind != "classes" or not samples.known.all():
            raise DataError("a memory keeps samples with one class each; some of these have none")
        self._check(samples)
        capacity = self._capacity(samples)
        if self.keep != "reservoir":
            kept, chosen, rank = self._herd(samples, capacity, features_of, method_of)
            self._rank = rank
        else:
            kept, chosen = self._draw(len(samples), capacity)
        self.seen += len(samples)
        parts = [copied(self.samples, kept)] if len(kept) else []
        parts += [self._packed(copied(samples, chosen))] if len(chosen) else []
        self.samples = stacked(parts, samples.classes) if parts else None

    def _check(self, samples: Samples) -> None:
        """Refuses samples that cannot lie beside those that are kept."""
        if len(self) and (type(samples) is not type(self.samples) or samples.shape != self.samples.shape):
            raise DataError(f"the memory holds {self.samples!r}, and these are {samples!r}")

    def _packed(self, samples: Samples) -> Samples:
        """Samples in the form in which they are kept."""
        return samples

    def _unpacked(self, samples: Samples, method_of: MethodOf | None) -> Samples:
        """Kept samples as they were seen."""
        return samples

    def _size(self, samples: Samples) -> int:
        """Bytes that one of these takes when it is kept."""
        return int(samples.inputs([0]).nbytes) + _OF_A_LABEL

    def _capacity(self, samples: Samples) -> int:
        """How many samples such as these the budget allows."""
        return self.most if self.most_bytes is None else self.most_bytes // self._size(samples)

    def shrink(self) -> None:
        """Lets go what the budget does not allow, after `load` of what was kept within a larger one."""
        if not len(self) or len(self) <= (capacity := self._capacity(self.samples)):
            return
        if self.keep != "reservoir":
            kept = np.flatnonzero(self._rank < capacity // len(np.unique(self.samples.labels)))
            self._rank = self._rank[kept]
        else:
            generator = np.random.Generator(np.random.Philox(step_seed(self.seed, self.seen, 2**64 - 4)))
            kept = np.sort(generator.permutation(len(self))[:capacity])
        self.samples = copied(self.samples, kept) if len(kept) else None

    def _draw(self, count: int, capacity: int) -> tuple[np.ndarray, np.ndarray]:
        """Positions in the memory that stay, and those of new samples that come in: Vitter's algorithm R, at once."""
        place = self.seen + np.arange(count)
        generator = np.random.Generator(np.random.Philox(step_seed(self.seed, self.seen, 2**64 - 4)))
        slot = np.where(place < capacity, place, generator.integers(0, place + 1))
        held = np.full(capacity, -1)
        inside = slot < capacity
        # Of several that take one slot, the last one stays.
        held[slot[inside]] = np.flatnonzero(inside)
        kept = np.flatnonzero(held[: len(self)] < 0)
        return kept, held[held >= 0]

    def _herd(
        self, samples: Samples, capacity: int, features_of: FeaturesOf | None, method_of: MethodOf | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if features_of is None:
            raise ConfigError(f"keep={self.keep} chooses by features: give features_of, or keep=reservoir")
        old = np.zeros(0, dtype=np.int64) if self.samples is None else self.samples.labels
        fresh = np.unique(samples.labels)
        quota = capacity // len(np.union1d(old, fresh))
        choose = _herding if self.keep == "herding" else _typical
        # Classes with nothing new keep those that were chosen first.
        again = np.isin(old, fresh)
        stays = np.flatnonzero(~again & (self._rank < quota))
        features = features_of(samples)
        before = np.flatnonzero(again)
        remembered = features[:0]
        if len(before):
            remembered = features_of(self._unpacked(self.samples.subset(before), method_of))
        kept, chosen = [stays], []
        ranks_kept, ranks_chosen = [self._rank[stays]], []
        for label in fresh:
            here, there = before[old[before] == label], np.flatnonzero(samples.labels == label)
            order = choose(np.concatenate([remembered[old[before] == label], features[there]]), quota)
            rank = np.arange(len(order))
            mine = order < len(here)
            kept.append(here[order[mine]])
            ranks_kept.append(rank[mine])
            chosen.append(there[order[~mine] - len(here)])
            ranks_chosen.append(rank[~mine])
        return np.concatenate(kept), np.concatenate(chosen), np.concatenate([*ranks_kept, *ranks_chosen])

    def save(self, path: Path) -> None:
        """Writes the memory into an .npz file, at once or not at all."""
        content: dict[str, np.ndarray] = {"seen": np.array(self.seen), "rank": self._rank}
        if len(self):
            kept = self.samples
            content |= {
                _stored(kept): kept.inputs(slice(None)),
                "labels": kept.labels,
                "keys": kept.keys,
                "names": np.array([str(name) for name in kept.names], dtype=np.str_),
                "classes": np.array(kept.classes, dtype=np.str_),
                **self._form(),
            }
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, **content)  # type: ignore[arg-type]

    def _form(self) -> dict[str, np.ndarray]:
        """What the file says of the form in which samples are kept."""
        return {}

    def _check_form(self, found: dict[str, np.ndarray]) -> None:
        """Refuses a file of samples in another form."""
        if "grid" in found:
            raise ConfigError("the memory of the stages before holds patches of images: keep patches here, too")

    def load(self, path: Path) -> None:
        """Takes over what `save` wrote.

        Raises:
            CheckpointError: the file is missing or damaged.
            ConfigError: it holds samples in another form.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                found = dict(file)
            self.seen, self._rank, self.samples = int(found["seen"]), np.zeros(0, dtype=np.int64), None
            if "labels" in found:
                rest = (found["labels"], found["names"].tolist(), tuple(found["classes"].tolist()), found["keys"])
                images = found.get("images")
                self.samples = FeatureSet(found["features"], *rest) if images is None else ImageSet(images, *rest)
                self._check_form(found)
                if self.keep != "reservoir":
                    # What was kept in another way has no order in its class but that of its rows.
                    self._rank = found["rank"] if len(found["rank"]) == len(self) else _places(self.samples.labels)
        except ConfigError:
            raise
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, DataError) as error:
            raise CheckpointError(f"the memory {ascii_path(str(path))} is damaged ({error})") from None


def _budget(budget: int | str) -> tuple[int, int | None]:
    """Samples, or bytes."""
    text = str(budget).strip()
    if re.fullmatch(r"\d+", text):
        return int(text), None
    try:
        return 0, parse_bytes(text)
    except ValueError:
        raise ConfigError(
            f"memory is {budget!r}; expected a number of samples, 0 or more, or an amount such as 20MB"
        ) from None


def _stored(samples: Samples) -> str:
    return "images" if isinstance(samples, ImageSet) else "features"


def copied(samples: Samples, index: np.ndarray) -> Samples:
    """Some samples with inputs of their own, without masks and further variables."""
    part = samples.subset(index)
    own: dict[str, Any] = {_stored(samples): part.inputs(slice(None)), "rows": None, "factors": {}}
    if isinstance(samples, ImageSet):
        own["masks"] = None
    return replace(part, **own)


def stacked(parts: list[Samples], classes: tuple[str, ...]) -> Samples:
    """The samples of several sets, whose inputs are their own (`copied`), as one."""
    if len(parts) == 1:
        return replace(parts[0], classes=classes)
    name = _stored(parts[0])
    inputs: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts])}
    return replace(
        parts[0],
        **inputs,
        labels=np.concatenate([part.labels for part in parts]),
        names=[each for part in parts for each in part.names],
        keys=np.concatenate([part.keys for part in parts]),
        classes=classes,
    )


def _places(labels: np.ndarray) -> np.ndarray:
    """How many rows before each have its label."""
    order = np.argsort(labels, kind="stable")
    ranked = labels[order]
    places = np.empty(len(labels), dtype=np.int64)
    places[order] = np.arange(len(labels)) - np.searchsorted(ranked, ranked)
    return places


def _herding(features: np.ndarray, count: int) -> np.ndarray:
    """Positions of the rows whose running mean stays nearest to the mean of all, the first chosen first."""
    z = features.astype(np.float64)
    z /= np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12)
    mean = z.mean(0)
    free = np.ones(len(z), dtype=bool)
    total = np.zeros(z.shape[1])
    order = np.zeros(min(count, len(z)), dtype=np.int64)
    for number in range(len(order)):
        distance = ((mean - (total + z) / (number + 1)) ** 2).sum(1)
        order[number] = np.where(free, distance, np.inf).argmin()
        free[order[number]] = False
        total += z[order[number]]
    return order


def _typical(features: np.ndarray, count: int) -> np.ndarray:
    """Positions of rows, evenly over their distances from the mean but for the furthest tenth, however many are taken.

    The order is that of the radical inverse: the first is in the middle, the next two at the quarters, and so on.
    """
    z = features.astype(np.float64)
    z /= np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12)
    ranked = np.argsort(((z - z.mean(0)) ** 2).sum(1), kind="stable")
    inner = ranked[: max(1, len(z) - len(z) // 10)]
    order = inner[np.argsort(_radical_inverse(len(inner)), kind="stable")]
    return np.concatenate([order, ranked[len(inner) :]])[:count]


def _radical_inverse(count: int) -> np.ndarray:
    """Where in an order from 0 to 1 each of so many evenly spaced places comes: the middle first."""
    bits = max(1, int(count).bit_length())
    place = np.arange(1, 2**bits)
    weights = 0.5 ** np.arange(1, bits + 1)
    inverse = ((place[:, None] >> np.arange(bits)) & 1) @ weights
    # Which place the n-th number of the sequence falls on, the first time that it falls there.
    falls = np.minimum((inverse * count).astype(np.int64), count - 1)
    first = np.full(count, 2**bits)
    np.minimum.at(first, falls, place)
    return first

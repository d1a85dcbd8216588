"""The pictures that `repertoire explain` writes, and what goes with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from repertoire.errors import Unreadable
    from repertoire.explain import Explainer
    from repertoire.train import Run

__all__ = ["Pictures", "pieces"]


class Pictures:
    """The pictures of many images, made and written a few images at a time."""

    def __init__(
        self, run: Run, explainers: dict[str, Explainer], folder: Path, targets: Sequence[int], top: int
    ) -> None:
        self.run, self.explainers, self.folder = run, explainers, folder
        self.targets, self.top = targets, top
        self.stems: dict[str, int] = {}
        self.count = 0

    def write(self, paths: list[Path], failures: list[Unreadable], *, gallery: bool, npz: bool) -> int:
        """The number of pictures written."""
        from repertoire.cli._maps import Index, MapArchive
        from repertoire.cli._progress import progress_bar
        from repertoire.cli.predict import read_batches
        from repertoire.data import plain

        names = list(self.explainers)
        before = _files(self.folder)
        with ExitStack() as stack:
            stack.callback(lambda: self.run.directory.record(*(_files(self.folder) - before)))
            index = stack.enter_context(Index(self.folder / "index.csv"))
            archive = (
                stack.enter_context(MapArchive(self.folder / "maps.npz", names, self.run.classes)) if npz else None
            )
            pages = self._gallery(paths) if gallery else None
            advance = stack.enter_context(progress_bar("explaining", len(paths)))
            for indices, pixels in read_batches(self.run, paths, failures):
                for rows in pieces(len(indices), self.run.size):
                    inputs = plain(torch.from_numpy(pixels[rows])).to(self.run.device)
                    probabilities = self.run.predict(pixels[rows])
                    chosen = self._chosen(probabilities)
                    maps = self._maps(inputs, chosen)
                    files = [paths[i] for i in indices[rows]]
                    if archive is not None:
                        archive.add(maps.numpy(), [_shown(path) for path in files], chosen.numpy())
                    for n, path in enumerate(files):
                        self._one(path, pixels[rows][n], maps[n], chosen[n].tolist(), probabilities[n], index, pages)
                    advance(len(files), "")
            if pages is not None:
                pages.close()
        return self.count

    def _chosen(self, probabilities: np.ndarray) -> Tensor:
        """The classes to explain, `[n, K]`."""
        if self.targets:
            return torch.tensor(self.targets).expand(len(probabilities), -1)
        return torch.from_numpy(np.argsort(-probabilities, 1, kind="stable")[:, : self.top].copy())

    def _maps(self, inputs: Tensor, chosen: Tensor) -> Tensor:
        """`[n, E, K, H, W]`."""
        return torch.stack([explain(self.run.model, inputs, chosen).cpu() for explain in self.explainers.values()], 1)

    def _gallery(self, paths: Sequence[Path]) -> Any:
        from repertoire.report import Gallery

        blind = [name for name, one in self.explainers.items() if not one.class_dependent]
        return Gallery(
            self.folder,
            title=f"Where {self.run.config.backbone} looked",
            subtitle=f"Run {self.run.path}; explained by {', '.join(self.explainers)}. Each map is scaled to its own "
            "largest value, so brightness says where, and not how much.",
            explainers=list(self.explainers),
            notes=[
                f"{name} gives the same map whatever the class: it shows what stands out to the network, not why it "
                "chose this class."
                for name in blind
            ],
            pixelated=self.run.size <= 64 and all(self._photograph(path) is None for path in paths[:1]),
        )

    def _one(
        self,
        path: Path,
        pixels: np.ndarray,
        maps: Tensor,
        chosen: list[int],
        probabilities: np.ndarray,
        index: Any,
        pages: Any,
    ) -> None:
        """The pictures of one image."""
        from repertoire.cli._maps import file_stem
        from repertoire.explain import place_on, save_overlay, to_unit_range
        from repertoire.report import Explained

        stem = self._stem(path)
        original = self._photograph(path)
        explained = [Explained(self.run.classes[k], float(probabilities[k]), []) for k in chosen]
        for name, heats in zip(self.explainers, maps, strict=True):
            for one, heat in zip(explained, heats, strict=True):
                parts = [stem]
                if len(self.explainers) > 1:
                    parts.append(file_stem(name))
                if len(chosen) > 1:
                    parts.append(file_stem(one.name))
                picture = ".".join(parts) + ".png"
                # An explainer that was asked not to scale its maps may give any size, and signs.
                shown = heat if self.explainers[name].normalize else to_unit_range(heat.clamp_min(0))
                if original is not None:
                    shown = place_on(shown, original.shape[:2], self.run.config.fit)
                save_overlay(self.folder / picture, pixels if original is None else original, shown)
                index.add(picture, _shown(path), name, one.name, one.probability)
                one.pictures.append(picture)
                self.count += 1
        if pages is not None:
            best = np.argsort(-probabilities, kind="stable")[:5]
            top = [(self.run.classes[k], float(probabilities[k])) for k in best.tolist()]
            pages.add(_shown(path), self._original(stem, pixels if original is None else original), top, explained)

    def _photograph(self, path: Path) -> np.ndarray | None:
        """The picture itself, to lay maps on; None where it shows no more than what the network saw."""
        from repertoire.explain import photograph

        with suppress(OSError):  # a format that only the data room reads
            found = photograph(path)
            if found is not None and max(found.shape[:2]) > self.run.size:
                return found
        return None

    def _original(self, stem: str, pixels: np.ndarray) -> str:
        """Writes the image itself, for the gallery; gives its place there."""
        from PIL import Image

        from repertoire.files import atomic_path

        small = max(pixels.shape[:2]) <= 64
        place = f"originals/{stem}.{'png' if small else 'jpg'}"
        picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
        with atomic_path(self.folder / place) as temporary:
            picture.save(temporary, format="PNG" if small else "JPEG", **({} if small else {"quality": 90}))
        return place

    def _stem(self, path: Path) -> str:
        """What the pictures of an image are called after; images of the same name get numbers."""
        from repertoire.cli._maps import file_stem

        stem = file_stem(path.stem)
        # Two names that differ in capitals are one file on some disks.
        key = stem.casefold()
        self.stems[key] = self.stems.get(key, 0) + 1
        return stem if self.stems[key] == 1 else f"{stem}~{self.stems[key]}"


def pieces(count: int, size: int) -> Iterator[slice]:
    """Slices of as many images as explainers can take at once; they keep far more of each than predicting does."""
    step = max(1, min(256, 2**20 // size**2))
    for start in range(0, count, step):
        yield slice(start, start + step)


def _shown(path: Path) -> str:
    from repertoire.cli._inputs import shown
    from repertoire.cli._maps import printable

    return printable(shown(path))


def _files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}

"""`repertoire protect`: a copy of a folder of images that is harder to learn from."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from repertoire.cli._options import DeviceOption, folder_out

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from repertoire.data import ImageSet
    from repertoire.methods import Classifier

__all__ = ["protect"]

_NO_CLASSES = ("masks", "unlabelled")
_LEVELS = {"uint16": (0.0, 65535.0)}
"""Black and white of images of more than 8 bits."""
_TURNED = (5, 6, 7, 8)
"""EXIF orientations at which width and height change places."""


def protect(
    photos: Annotated[Path, typer.Argument(help="A folder with a directory for each class.", show_default=False)],
    out: Annotated[
        Path,
        typer.Option(
            "-o",
            "--out",
            parser=folder_out,
            metavar="PATH",
            help="Folder of the copy; it must not exist yet.",
            show_default=False,
        ),
    ],
    epsilon: Annotated[
        str, typer.Option("--epsilon", help="Largest change of a value of [0, 1], as 8/255 or as 0.03.")
    ] = "8/255",
    share: Annotated[float, typer.Option("--share", help="Of the pixels of each image, those that may change.")] = 0.5,
    size: Annotated[
        int | None,
        typer.Option(
            "--size",
            min=1,
            help="Side at which changes are looked for; that of the images where all are squares of one size up to 64, "
            "and 64 for others.",
            show_default=False,
        ),
    ] = None,
    backbone: Annotated[
        str,
        typer.Option("--backbone", help="The network to make the changes against; see 'repertoire list backbones'."),
    ] = "convnet",
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Turns of network and images, at most.")] = 10,
    seed: Annotated[int, typer.Option("--seed", help="Of the network, and of what it is trained on.")] = 0,
    device: DeviceOption = "auto",
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="Leave out the images that cannot be used.")
    ] = False,
) -> None:
    """Write a copy of a folder of images that is harder for networks to learn from.

    Every image keeps its place, its name and its size, and looks as before: no value changes by more than epsilon, and
    only pixels that matter do. The copies are PNG files, because compression with losses would take the changes away,
    and hold the pixels alone: no date and no place. The copy appears when all of it is written, or not at all.

    This is no encryption: training that is made to withstand small changes learns from the copy all the same, and so
    may networks of another kind than the one that the changes are made against.
    """
    import torch

    from repertoire.errors import ascii_path
    from repertoire.protect import sparse_unlearnable
    from repertoire.recipe import find_device, make_config

    largest = _number(epsilon)
    _check_places(photos, out)
    images = _read(photos, size, skip_unreadable)
    pixels = torch.from_numpy(images.pixels(slice(None))).permute(0, 3, 1, 2)
    if bool((pixels == pixels[:, :1]).all()):
        pixels = pixels[:, :1]  # changes of a grey image are grey
    place = find_device(make_config(data=str(photos), device=device))
    torch.manual_seed(seed)
    network = _network(pixels, len(images.classes), backbone).to(place)
    typer.echo(f"{len(images):,} images of {len(images.classes)} classes, changes at {pixels.shape[3]} pixels")

    def said(done: int, right: float) -> None:
        typer.echo(f"round {done}: {right:.1%} of the changed images are named rightly", err=True)

    # Begun first: where nothing can be written, nothing need be computed.
    with _appearing(out) as folder:
        found = sparse_unlearnable(
            pixels.contiguous(),
            torch.from_numpy(images.labels),
            network,
            epsilon=largest,
            share=share,
            rounds=rounds,
            generator=torch.Generator().manual_seed(seed),
            progress=said,
        )
        _write(photos, folder, images.names, found.changes.permute(0, 2, 3, 1).numpy())
    typer.echo(f"protected: {ascii_path(str(out))}")
    if found.fooled < 0.9:
        typer.echo(
            f"The network has not learned the changes: it names {found.fooled:.1%} of the changed images rightly, and "
            "others may learn from them still. Try more --rounds, a larger --share or a larger --epsilon.",
            err=True,
        )


def _number(text: str) -> float:
    """A number, or a fraction of two."""
    from repertoire.errors import ConfigError

    above, _, below = text.partition("/")
    try:
        return float(above) / float(below or 1)
    except (ValueError, ZeroDivisionError):
        raise ConfigError(f"epsilon must be a number or a fraction, 0.03 or 8/255, found {text!r}") from None


def _check_places(photos: Path, out: Path) -> None:
    """Refuses to write over what is there, and where the copy would be taken for more images to protect."""
    from repertoire.errors import DataError, RunError, ascii_path

    if not photos.is_dir():
        raise DataError(f"{ascii_path(str(photos))} is no folder; expected one with a directory for each class")
    shown = ascii_path(str(out))
    if os.path.lexists(out):
        raise RunError(f"{shown} is there already, and nothing is written over it: name another --out")
    if out.resolve().is_relative_to(photos.resolve()):
        raise RunError(f"{shown} lies in the folder that is to be protected: name another --out")


def _read(photos: Path, size: int | None, skip: bool) -> ImageSet:
    """All images, at the size at which changes are looked for."""
    from repertoire.data import find_images, load_folder_set
    from repertoire.errors import DataError, ascii_path

    files = [path.relative_to(photos) for path in find_images(photos)]
    heads = {path.parts[0] for path in files if len(path.parts) > 1}
    classes = sorted(head for head in heads if head.casefold() not in _NO_CLASSES)
    if len(classes) < 2:
        raise DataError(
            f"{ascii_path(str(photos))} has {len(classes)} directories with images in them; expected at least two, one "
            "for each class, for what a network is to learn are the classes"
        )
    if size is None:
        shapes = {_shape(photos / path) for path in files if path.parts[0] in classes}
        only = next(iter(shapes)) if len(shapes) == 1 else None
        size = only[0] if only is not None and only[0] == only[1] <= 64 else 64
    return load_folder_set(photos, classes=classes, size=size, fit="squash", skip_unreadable=skip, levels=_LEVELS)


def _shape(path: Path) -> tuple[int, int] | None:
    """Width and height of an image, upright; None where it is none, which whoever reads it will say."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            # Pillow turns TIFF itself, and says its upright size already.
            turned = image.format != "TIFF" and image.getexif().get(0x0112) in _TURNED
            return image.size[::-1] if turned else image.size
    except Exception:  # whatever a file that anyone may have made raises
        return None


def _network(pixels: Tensor, classes: int, backbone: str) -> Classifier:
    from repertoire import heads, registry
    from repertoire.methods import Classifier, Normalize

    values = pixels.transpose(0, 1).flatten(1).float() / 255
    net = registry.build("backbones", backbone, in_channels=pixels.shape[1], image_size=pixels.shape[3])
    normalize = Normalize(values.mean(1).tolist(), values.std(1).tolist())
    return Classifier(normalize, net, heads.Linear(net.out_features, classes))


@contextmanager
def _appearing(out: Path) -> Iterator[Path]:
    """A folder beside `out` that becomes it when the block ends well, and vanishes when it does not."""
    from repertoire.files import sync

    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}.", suffix=".tmp"))
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        os.rename(temporary, out)
        sync(out.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(photos: Path, folder: Path, names: Sequence[str], changes: np.ndarray) -> None:
    """Writes the changed images, each at its place."""
    from PIL import Image

    plain = [str(Path(name).with_suffix(".png")) for name in names]
    shared = Counter(plain)
    for name, short, change in zip(names, plain, changes, strict=True):
        # Two images of one name and two formats keep the format in their names.
        target = folder / (short if shared[short] == 1 else f"{name}.png")
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(_changed(photos / name, change)).save(target, "PNG")


def _changed(path: Path, change: np.ndarray) -> np.ndarray:
    """An image as large as it is, with changes `[size, size, channels]` that are enlarged to it."""
    import numpy as np

    from repertoire.data import decode, read_file

    shape = _shape(path)
    assert shape is not None
    width, height = shape
    whole = decode(read_file(str(path))[0], max(shape), "pad", _LEVELS)
    top, left = (max(shape) - height) // 2, (max(shape) - width) // 2
    image = whole[top : top + height, left : left + width, : change.shape[2]]
    # A pixel takes the change at its middle.
    rows, columns = ((2 * np.arange(side) + 1) * len(change) // (2 * side) for side in (height, width))
    changed = np.clip(image.astype(np.int16) + change[rows][:, columns], 0, 255).astype(np.uint8)
    return changed[:, :, 0] if changed.shape[2] == 1 else changed


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

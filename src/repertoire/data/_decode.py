"""From the bytes of an image file to a square RGB image, whatever kind of image file it is.

This file is also run by its path, as the program of the processes that decode (`_pool`). So that they start in no time,
it imports nothing of Repertoire, and NumPy only where it is needed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import stat
import sys
import time
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from PIL import Image, UnidentifiedImageError

if TYPE_CHECKING:
    import numpy as np

__all__ = ["decode", "decode_rows", "dimensions", "open_file", "plain_reason", "read_file"]

MAX_PIXELS = 178_956_970
"""More are taken for a decompression bomb: a small file that unpacks to fill the memory. Pillow's own limit."""

MAX_BYTES = 2**30
"""Longer files are not read: no image of `MAX_PIXELS` needs as much in a format that people keep photographs in."""

# The formats are tried in this order; those of the second line are registered only when a file is none of the first.
# Absent on purpose: EPS, for which Pillow runs Ghostscript, and formats without a signature, which fit any bytes.
_COMMON = ("JPEG", "PNG", "GIF", "BMP", "PPM")
_RARE = ("WEBP", "TIFF", "AVIF", "JPEG2000", "ICO", "ICNS", "PCX", "QOI", "SGI", "DDS", "PSD")

_SIGNATURES = {b"\xff\xd8\xff": "JPEG", b"\x89PNG": "PNG", b"GIF8": "GIF", b"II*\0": "TIFF", b"MM\0*": "TIFF"}

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_CLOCK_TICK = 20_000_000
"""Nanoseconds; file systems stamp files with a clock that moves on in steps shorter than this."""


def decode(data: bytes, size: int, fit: Literal["crop", "squash", "pad"] = "crop") -> np.ndarray:
    """The image that a file holds, upright, in colour, and square.

    Rotation in EXIF is applied. Grey images get three equal channels; what is transparent shows white; 16-bit, 32-bit
    and floating-point images are scaled, not clipped, to 8 bits; of an animation the first frame counts. Resizing is
    bicubic and antialiased.

    Args:
        data: the bytes of the file. The format is told from them, not from a name.
        size: side of the result in pixels.
        fit: "crop" scales the shorter side to `size` and keeps the centre, "squash" changes the proportions, "pad"
            scales the longer side to `size` and adds black bars.

    Returns:
        uint8 `[size, size, 3]`.

    Raises:
        ValueError: the bytes are no image, a damaged one, or one too large; the message says which, as what the file
            "is" or "has".

    Example:
        >>> file = io.BytesIO()
        >>> Image.new("L", (40, 30), 200).save(file, "PNG")
        >>> decode(file.getvalue(), 8).shape
        (8, 8, 3)
    """
    import numpy as np

    return np.asarray(_decode(data, size, fit))


def dimensions(data: bytes) -> tuple[int, int]:
    """Width and height in pixels of the image that a file holds, from its header.

    Raises:
        ValueError: as `decode`.
    """
    try:
        with _open(data) as image:
            return image.size
    except Exception as error:
        raise ValueError(plain_reason(error, data)) from error


def open_file(path: str) -> tuple[io.FileIO, os.stat_result]:
    """A file opened for reading, and its state.

    Raises:
        OSError: it cannot be read, is not a file (a pipe would be waited for without end), or is far too long.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "is not a regular file")
        if status.st_size > MAX_BYTES:
            raise OSError(errno.EFBIG, f"has {status.st_size:,} bytes; more than {MAX_BYTES:,} are refused")
        return io.FileIO(descriptor), status
    except OSError:
        os.close(descriptor)
        raise


def read_file(path: str) -> tuple[bytes, tuple[int, int, int]]:
    """The bytes of a file and its signature: length, time of the last change, and inode.

    A file with the same signature later is taken to be unchanged. One that was changed within the last tick of the
    clock could change once more without its time changing, so it is given a moment first.

    Raises:
        OSError: as `open_file`.
    """
    file, status = open_file(path)
    with file:
        if 0 <= time.time_ns() - status.st_mtime_ns < _CLOCK_TICK:
            time.sleep(_CLOCK_TICK / 1e9)
        return file.readall(), (status.st_size, status.st_mtime_ns, status.st_ino)


def decode_rows(
    paths: Sequence[str], size: int, fit: Literal["crop", "squash", "pad"]
) -> tuple[bytes, list[dict[str, Any]]]:
    """Reads, hashes and decodes files, each read once.

    Returns:
        The bytes of uint8 `[n, size, size, 3]`, zero where a file failed; and for each file a dictionary that can be
        written as JSON, with `signature` and `key` (the hash of its bytes) if it could be read, and `reason` if it
        cannot be used.
    """
    rows: list[bytes] = []
    outcomes: list[dict[str, Any]] = []
    for path in paths:
        outcome: dict[str, Any] = {}
        try:
            data, outcome["signature"] = read_file(path)
            outcome["key"] = int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
            rows.append(_decode(data, size, fit).tobytes())
        except (OSError, ValueError) as error:
            rows.append(bytes(size * size * 3))
            outcome["reason"] = plain_reason(error)
        outcomes.append(outcome)
    return b"".join(rows), outcomes


def plain_reason(error: BaseException, data: bytes | None = None) -> str:
    """What is wrong with a file, as something that it "is", "has" or "holds".

    Args:
        error: what reading or decoding raised.
        data: the bytes of the file where they could be read.
    """
    text = " ".join(str(error).split())
    if isinstance(error, ValueError) and data is None:
        return text
    if isinstance(error, FileNotFoundError):
        return "does not exist, or is a link to something that does not"
    if isinstance(error, PermissionError):
        return "may not be read (permission denied)"
    if isinstance(error, OSError) and error.errno == errno.ELOOP:
        return "is a link that leads back to itself"
    if isinstance(error, OSError) and error.errno in (errno.EINVAL, errno.EFBIG):
        return str(error.strerror)
    if isinstance(error, OSError) and error.errno is not None:
        return f"cannot be read ({error.strerror})"
    if isinstance(error, MemoryError):
        return "does not fit into memory when decoded"
    if isinstance(error, Image.DecompressionBombError | _TooLarge):
        return f"is a decompression bomb, or too large: more than {MAX_PIXELS:,} pixels"
    if data is not None and not data:
        return "is empty (0 bytes)"
    if isinstance(error, UnidentifiedImageError):
        kind = next((kind for begin, kind in _SIGNATURES.items() if (data or b"").startswith(begin)), None)
        return f"is a damaged {kind} file" if kind else "is not an image, or of a format that is not supported"
    if "truncated" in text.lower() or isinstance(error, EOFError):
        return "is truncated"
    return f"is damaged ({text or type(error).__name__})"


def _decode(data: bytes, size: int, fit: Literal["crop", "squash", "pad"]) -> Image.Image:
    """`decode`, before it is an array."""
    try:
        with _open(data) as image:
            # JPEG can be decoded at an eighth, a quarter or half the size; twice the target leaves enough to resample.
            image.draft(None, (2 * size, 2 * size))
            image.load()
            # Asked after loading: Pillow turns TIFF itself, and says afterwards that nothing remains to be done.
            turn = _UPRIGHT.get(_orientation(image))
            # A square turned after it was made small costs next to nothing, and is the same square.
            square = _square(_rgb(image), size, fit)
            return square if turn is None else square.transpose(turn)
    except Exception as error:  # a decoder that is fed a damaged file may raise anything at all
        raise ValueError(plain_reason(error, data)) from error


class _TooLarge(Exception):
    """An image has more than `MAX_PIXELS`."""


def _open(data: bytes) -> Image.Image:
    """The image with its header read and its pixels not."""
    file = io.BytesIO(data)
    try:
        image = Image.open(file, formats=_COMMON)
    except UnidentifiedImageError:
        Image.init()
        image = Image.open(file, formats=[name for name in _RARE if name in Image.OPEN])
    if image.width * image.height > MAX_PIXELS:  # Pillow's limit may have been lifted by the program around us
        raise _TooLarge
    return image


def _orientation(image: Image.Image) -> int:
    if image.format == "JPEG" and "exif" not in image.info and "xmp" not in image.info:
        return 1  # most images of a small-image data set; asking costs as much as decoding them
    with contextlib.suppress(Exception):  # metadata that is damaged does not make an image unusable
        return int(image.getexif().get(_ORIENTATION, 1))
    return 1


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return _eight_bits(image).convert("RGB")
    if "transparency" in image.info or image.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """A grey image of 16 or 32 bits, or of floats, scaled to 8 bits."""
    import numpy as np

    values = np.asarray(image, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError("it holds values that are not finite numbers")
    low, high = float(values.min()), float(values.max())
    # The type says what white is only where it has 16 bits. Pillow opens 16-bit PNG as 32-bit integers.
    if image.mode.startswith("I;16") or image.format == "PNG":
        white = 65535.0
    elif low < 0 or high > 65535:
        values, white = values - low, high - low
    else:
        white = next(
            limit for limit in ((1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)) if high <= limit
        )
    return Image.fromarray(np.rint(values * (255 / white)).astype(np.uint8))


def _square(image: Image.Image, size: int, fit: Literal["crop", "squash", "pad"]) -> Image.Image:
    width, height = image.size
    if (width, height) == (size, size):
        return image
    if fit == "squash":
        return _resize(image, (size, size))
    if fit == "crop":
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        return _resize(image, (size, size), (left, top, left + side, top + side))
    scale = size / max(width, height)
    inner = _resize(image, (max(1, round(width * scale)), max(1, round(height * scale))))
    canvas = Image.new("RGB", (size, size))
    canvas.paste(inner, ((size - inner.width) // 2, (size - inner.height) // 2))
    return canvas


def _resize(
    image: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float] | None = None
) -> Image.Image:
    # With a gap of 3 a large image is first averaged over whole pixels, which cannot be told from doing it in one step.
    return image.resize(size, Image.Resampling.BICUBIC, box=box, reducing_gap=3.0)


def _serve() -> None:
    """Decodes what standard input asks for, a line of JSON at a time, until it ends.

    The first line says where and how: `file`, `offset`, `size`, `fit`. Each further line is a job, `row` and `paths`;
    the pixels are written to their place in the file, and the answer is a line on standard output.
    """
    warnings.simplefilter("ignore")
    print("ready", flush=True)
    setting = json.loads(sys.stdin.readline())
    size, fit = setting["size"], setting["fit"]
    descriptor = os.open(setting["file"], os.O_WRONLY)
    for line in sys.stdin:
        job = json.loads(line)
        pixels, outcomes = decode_rows(job["paths"], size, fit)
        answer: dict[str, Any] = {"outcomes": outcomes}
        try:
            os.pwrite(descriptor, pixels, setting["offset"] + job["row"] * size * size * 3)
        except OSError as error:
            answer = {"errno": error.errno}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    # Who started this process may be gone: then there is nobody to answer, and nothing to say.
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        _serve()

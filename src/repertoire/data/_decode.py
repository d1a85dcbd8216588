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
import re
import stat
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from PIL import Image, ImageChops, UnidentifiedImageError

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "decode",
    "decode_or_look",
    "decode_rows",
    "dimensions",
    "file_of",
    "member",
    "open_file",
    "part_signature",
    "plain_reason",
    "read_file",
    "signature",
    "write_all",
]

Fit = Literal["crop", "squash", "pad"]
"""How an image becomes a square: its centre, all of it out of proportion, or all of it with a border."""

What = Literal["image", "mask"]
Levels = Mapping[str, Sequence[float]]
"""Black and white of images of more than 8 bits, by kind: "uint16", "int32" and "float32"."""

MAX_PIXELS = 178_956_970
"""More are taken for a decompression bomb: a small file that unpacks to fill the memory. Pillow's own limit."""

MAX_BYTES = 2**30
"""Longer files are not read: no image of `MAX_PIXELS` needs as much in a format that people keep photographs in."""

MAX_MEMORY = 3 * 2**28
"""Bytes that the pixels of one image may take while it is decoded; JPEG is decoded at a fraction of its size."""

_ONE_AT_A_TIME = 2**26
"""Images that take more are decoded one after another, whatever the number of decoders."""

_BAND_PIXELS = 2**20
"""Large images are converted this many pixels at a time, each band being made small before the next."""

_DEFAULT_LEVELS: Levels = {"uint16": (0, 65535)}
"""Of an image by itself. What white is in 32-bit integers and floats, only a data set can say."""

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


def decode(data: bytes, size: int, fit: Fit = "crop", levels: Levels | None = None) -> np.ndarray:
    """The image that a file holds, upright, in colour, and square.

    Rotation in EXIF is applied. Grey images get three equal channels; what is transparent shows white; images of more
    than 8 bits are scaled from `levels` to 8 bits, and clipped; of an animation the first frame counts. Resizing is
    bicubic and antialiased.

    Args:
        data: the bytes of the file. The format is told from them, not from a name.
        size: side of the result in pixels.
        fit: "crop" scales the shorter side to `size` and keeps the centre, "squash" changes the proportions, "pad"
            scales the longer side to `size` and adds black bars.
        levels: black and white of the data set that the image belongs to. By itself, a 16-bit image has white at
            65535.

    Returns:
        uint8 `[size, size, 3]`.

    Raises:
        ValueError: the bytes are no image, a damaged one, one too large, or one of floats or 32-bit integers without
            levels; the message says which, as what the file "is" or "has".

    Example:
        >>> file = io.BytesIO()
        >>> Image.new("L", (40, 30), 200).save(file, "PNG")
        >>> decode(file.getvalue(), 8).shape
        (8, 8, 3)
    """
    import numpy as np

    return np.asarray(_decode(data, size, fit, levels or {})[0])


def decode_or_look(
    data: bytes, size: int, fit: Fit, levels: Levels
) -> tuple[np.ndarray | None, tuple[str, float, float] | None]:
    """`decode`, and the range (kind, lowest and highest value) of an image of more than 8 bits; no image where there
    are no levels of its kind.

    Raises:
        ValueError: as `decode`.
    """
    import numpy as np

    image, span = _decode(data, size, fit, levels, look=True)
    return (None if image is None else np.asarray(image)), span


def dimensions(data: bytes) -> tuple[int, int]:
    """Width and height in pixels of the image that a file holds, upright, from its header.

    Raises:
        ValueError: as `decode`.
    """
    try:
        with _open(data) as image:
            # Pillow turns TIFF itself, and says its upright size already.
            turned = image.format != "TIFF" and _orientation(image) >= 5
            return image.size[::-1] if turned else image.size
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


def signature(status: os.stat_result) -> tuple[int, int, int, int]:
    """Length, time of the last change, inode, and the time at which the system last noted a change of any kind.

    The last cannot be set: an archive unpacked over another, or a copy that keeps times, changes a file of equal length
    without changing anything else.
    """
    return status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns


_MEMBER = re.compile(r"(.+)//(\d+)\+(\d+)", re.DOTALL)


def member(path: str, offset: int, length: int) -> str:
    """Name of a part of a file, as `read_file` takes it. No path of a file looks so: it has no empty part.

    Example:
        >>> member("shards/000.tar", 512, 1024)
        'shards/000.tar//512+1024'
    """
    return f"{path}//{offset}+{length}"


def file_of(path: str) -> str:
    """The file that a path, or the name of a part of a file, lies in."""
    part = _MEMBER.fullmatch(path)
    return path if part is None else part[1]


def read_file(path: str) -> tuple[bytes, tuple[int, int, int, int]]:
    """The bytes of a file, or of a part of it (`member`), and its `signature`.

    A file with the same signature later is taken to be unchanged. One that was changed within the last tick of the
    clock could change once more without its time changing, so it is given a moment first.

    Raises:
        OSError: as `open_file`.
    """
    part = _MEMBER.fullmatch(path)
    if part is not None:
        return _read_part(part[1], int(part[2]), int(part[3]))
    file, status = open_file(path)
    with file:
        if 0 <= time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) < _CLOCK_TICK:
            time.sleep(_CLOCK_TICK / 1e9)
        return file.readall(), signature(status)


def _read_part(path: str, offset: int, length: int) -> tuple[bytes, tuple[int, int, int, int]]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.pread(descriptor, min(length, MAX_BYTES), offset)
        return data, part_signature(os.fstat(descriptor), offset, length)
    finally:
        os.close(descriptor)


def part_signature(status: os.stat_result, offset: int, length: int) -> tuple[int, int, int, int]:
    """As `signature`, of a part of a file: its place stands in place of the inode."""
    return length, status.st_mtime_ns, offset, status.st_ctime_ns


def decode_rows(
    paths: Sequence[str], size: int, fit: Fit, what: What = "image", levels: Levels | None = None
) -> tuple[list[bytes], list[dict[str, Any]]]:
    """Reads, hashes and decodes files, each read once.

    Args:
        paths, size, fit: as in `decode`.
        what: "mask" gives white wherever the image is not black or transparent.
        levels: as in `decode`. Without those of its kind, an image of more than 8 bits is looked at and not decoded.

    Returns:
        For each file the bytes of uint8 `[size, size, 3]`, zero where there is no image; and a dictionary that can be
        written as JSON, with `signature` and `key` (the hash of its bytes) if it could be read, `range` (kind, lowest
        and highest value) if it has more than 8 bits, and `reason` if it cannot be used.
    """
    rows: list[bytes] = []
    outcomes: list[dict[str, Any]] = []
    for path in paths:
        outcome: dict[str, Any] = {}
        image = None
        try:
            data, outcome["signature"] = read_file(path)
            outcome["key"] = int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
            image, span = _decode(data, size, fit, levels or {}, what, look=True)
            outcome |= {} if span is None else {"range": span}
        except (OSError, ValueError) as error:
            outcome["reason"] = plain_reason(error)
        rows.append(bytes(size * size * 3) if image is None else image.tobytes())
        outcomes.append(outcome)
    return rows, outcomes


def write_all(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    """Writes all of the data at a place in a file; `os.pwrite` may write less than it was given.

    Raises:
        OSError: it cannot be written, the disk being full above all.
    """
    left = memoryview(data).cast("B")
    while left:
        written = os.pwrite(descriptor, left, offset)
        if written == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left, offset = left[written:], offset + written


def plain_reason(error: BaseException, data: bytes | None = None) -> str:
    """Short reason why a file cannot be read, as something that it "is", "has" or "holds".

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
    if isinstance(error, _TooLarge):
        return str(error)
    if isinstance(error, Image.DecompressionBombError):
        return str(_TooLarge())
    if isinstance(error, _NoLevels):
        return str(error)
    if data is not None and not data:
        return "is empty (0 bytes)"
    if isinstance(error, UnidentifiedImageError):
        kind = next((kind for begin, kind in _SIGNATURES.items() if (data or b"").startswith(begin)), None)
        return f"is a damaged {kind} file" if kind else "is not an image, or of a format that is not supported"
    if "truncated" in text.lower() or isinstance(error, EOFError):
        return "is truncated"
    return f"is damaged ({text or type(error).__name__})"


def _decode(
    data: bytes, size: int, fit: Fit, levels: Levels, what: What = "image", look: bool = False
) -> tuple[Image.Image | None, tuple[str, float, float] | None]:
    """`decode`, before it is an array, and what range the values of an image of more than 8 bits have.

    With `look`, an image whose kind has no levels is only asked for its range.
    """
    try:
        with _open(data) as image:
            # JPEG can be decoded at an eighth, a quarter or half the size; twice the target leaves enough to resample.
            image.draft(None, (2 * size, 2 * size))
            with _memory(image):
                kind = _kind(image)
                wide = _low_bytes(data, image) if kind == "uint16" and image.mode in ("RGB", "RGBA") else None
                image.load()
                # Asked after loading: Pillow turns TIFF itself, and says afterwards that nothing remains to be done.
                turn = _UPRIGHT.get(_orientation(image))
                span = None if kind is None or what == "mask" else (kind, *_range(image))
                if span is not None and span[0] not in levels:
                    if look:
                        return None, span
                    levels = {**levels, span[0]: _alone(*span)}
                if what == "mask":
                    convert: Converter = _mask
                elif span is None:
                    convert = _rgb
                else:
                    convert = _scaled(levels[span[0]], wide)
                # A square turned after it was made small costs next to nothing, and is the same square.
                square = _square(image, size, fit, convert)
                return square if turn is None else square.transpose(turn), span
    except Exception as error:  # a decoder that is fed a damaged file may raise anything at all
        raise ValueError(plain_reason(error, data)) from error


class _TooLarge(Exception):
    """An image has more than `MAX_PIXELS`, or takes more than `MAX_MEMORY`."""

    def __init__(self, needed: int = 0) -> None:
        super().__init__(
            f"takes {needed:,} bytes of memory to be decoded; more than {MAX_MEMORY:,} are refused"
            if needed
            else f"is a decompression bomb, or too large: more than {MAX_PIXELS:,} pixels"
        )


class _NoLevels(Exception):
    """An image by itself does not say what white is."""

    def __init__(self, kind: str, low: float, high: float) -> None:
        super().__init__(
            f"holds {kind} values from {low:g} to {high:g}, of which only its data set can say what is black and what "
            "is white; give levels, or save it with 8 or 16 bits"
        )


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


_TURN = threading.Lock()
_turn_file: int | None = None
"""A file that the decoding processes lock in turn."""


@contextlib.contextmanager
def _memory(image: Image.Image) -> Iterator[None]:
    """Refuses an image that takes too much memory, and lets one that takes much wait for others of its kind."""
    per_pixel = 2 if image.mode.startswith("I;16") else 1 if image.mode in ("1", "L", "P") else 4
    needed = image.width * image.height * per_pixel
    if needed > MAX_MEMORY:
        raise _TooLarge(needed)
    if needed <= _ONE_AT_A_TIME:
        yield
        return
    with _TURN:
        if _turn_file is None:
            yield
            return
        import fcntl

        fcntl.flock(_turn_file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(_turn_file, fcntl.LOCK_UN)


def _kind(image: Image.Image) -> str | None:
    """What kind of more than 8 bits an image has that is not loaded yet; None for 8 bits."""
    if image.mode == "F":
        return "float32"
    if image.mode.startswith("I;16") or _raw_mode(image) in _SWAPPED:
        return "uint16"
    if image.mode == "I":
        # Pillow opens PNG and PPM of 16 bits as 32-bit integers.
        return "uint16" if image.format in ("PNG", "PPM") else "int32"
    return None


_SWAPPED = {f"{mode};16{old}": f"{mode};16{new}" for mode in ("RGB", "RGBA") for old, new in ("BL", "LB", "NB")}
"""How Pillow calls colours of 16 bits, and the same with the two bytes of each the other way round."""


def _raw_mode(image: Image.Image) -> str:
    """How the pixels of a PNG or TIFF are stored, or nothing."""
    if image.format not in ("PNG", "TIFF") or not getattr(image, "tile", None):
        return ""
    stored = image.tile[0][3]  # type: ignore[attr-defined]
    return str(stored[0] if isinstance(stored, tuple | list) else stored)


def _low_bytes(data: bytes, image: Image.Image) -> Image.Image | None:
    """The lower halves of an image with 16 bits a channel, not loaded yet: Pillow keeps the upper halves only."""
    stored = _raw_mode(image)
    if stored not in _SWAPPED or (sys.byteorder == "big" and stored.endswith("N")):
        return None
    swapped = _SWAPPED[stored]
    low = _open(data)
    low.tile = [  # type: ignore[attr-defined]
        tile._replace(args=(swapped, *tile.args[1:]) if isinstance(tile.args, tuple | list) else swapped)
        for tile in low.tile  # type: ignore[attr-defined]
    ]
    return low


def _range(image: Image.Image) -> tuple[float, float]:
    """The lowest and the highest value."""
    import numpy as np

    if image.mode in ("RGB", "RGBA"):  # the upper halves of 16 bits, which is enough to tell the number of bits
        return 0.0, 256.0 * max(high for _, high in image.getextrema()[:3]) + 255  # type: ignore[misc]
    low, high = np.inf, -np.inf
    for box in _bands(image.width, (0, 0, *image.size), 1):
        values = np.asarray(image.crop(box))
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise ValueError("it holds values that are not finite numbers")
        low, high = min(low, float(values.min())), max(high, float(values.max()))
    return low, high


def _alone(kind: str, low: float, high: float) -> Sequence[float]:
    """The levels of an image that belongs to no data set."""
    if kind not in _DEFAULT_LEVELS:
        raise _NoLevels(kind, low, high)
    return _DEFAULT_LEVELS[kind]


def _rgb(image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    """A part of an image of 8 bits, in colour, over white."""
    part = image.crop(box)
    if "transparency" in image.info or image.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        layer = part.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return part.convert("RGB")


def _mask(image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    """A part of a mask: white where the image is neither black nor transparent."""
    import numpy as np

    part = image.crop(box)
    if image.mode.startswith("I") or image.mode == "F":
        on = np.asarray(part) > 0
    else:
        layer = part.convert("RGBA")
        *colours, alpha = layer.split()
        bright = ImageChops.lighter(ImageChops.lighter(colours[0], colours[1]), colours[2])
        on = (np.asarray(bright) > 0) & (np.asarray(alpha) > 0)
    return Image.fromarray(on.astype(np.uint8) * np.uint8(255)).convert("RGB")


Converter = Callable[[Image.Image, tuple[int, int, int, int]], Image.Image]


def _scaled(levels: Sequence[float], wide: Image.Image | None) -> Converter:
    """Scales a part of an image of more than 8 bits from its levels to 8 bits."""
    import numpy as np

    black, white = levels

    def convert(image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
        values = np.asarray(image.crop(box), dtype=np.float64)
        alpha = None
        if values.ndim == 3:
            # The upper halves alone are near enough for the full range.
            low = 127.5 if wide is None or white >= 65535 else np.asarray(wide.crop(box))[..., :3]
            alpha = values[..., 3:] / 255 if image.mode == "RGBA" else None
            values = 256 * values[..., :3] + low
        scaled = ((values - black) * (255 / (white - black or 1))).clip(0, 255)
        if alpha is not None:
            scaled = alpha * scaled + (1 - alpha) * 255
        return Image.fromarray(np.rint(scaled).astype(np.uint8)).convert("RGB")

    return convert


def _bands(width: int, box: tuple[int, int, int, int], step: int) -> Iterator[tuple[int, int, int, int]]:
    """A box in horizontal bands, the height of each but the last a multiple of `step`."""
    left, top, right, bottom = box
    rows = max(1, _BAND_PIXELS // width // step) * step
    for start in range(top, bottom, rows):
        yield left, start, right, min(start + rows, bottom)


def _square(image: Image.Image, size: int, fit: Fit, convert: Converter) -> Image.Image:
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    box = (left, top, left + side, top + side) if fit == "crop" else (0, 0, width, height)
    scale = size / max(width, height)
    inner = (max(1, round(width * scale)), max(1, round(height * scale))) if fit == "pad" else (size, size)
    if convert is _rgb and image.mode in ("RGB", "L") and "transparency" not in image.info:
        small = image if image.size == inner else _resize(image, inner, box)
        small = small.convert("RGB")
    else:
        small = _converted(image, inner, box, convert)
    if inner == (size, size):
        return small
    canvas = Image.new("RGB", (size, size))
    canvas.paste(small, ((size - small.width) // 2, (size - small.height) // 2))
    return canvas


def _converted(
    image: Image.Image, size: tuple[int, int], box: tuple[int, int, int, int], convert: Converter
) -> Image.Image:
    """A box of an image converted and resized, without ever holding it converted at its full size where it is large."""
    width, height = box[2] - box[0], box[3] - box[1]
    across, down = (max(1, int(long / short / _GAP)) for long, short in zip((width, height), size, strict=True))
    reduced = Image.new("RGB", (-(-width // across), -(-height // down)))
    for part in _bands(width, box, down):
        band = convert(image, part)
        reduced.paste(band.reduce((across, down)) if across * down > 1 else band, (0, (part[1] - box[1]) // down))
    if reduced.size == size:
        return reduced
    return reduced.resize(size, Image.Resampling.BICUBIC, box=(0, 0, width / across, height / down))


_GAP = 3.0
"""A large image is first averaged over whole pixels to this many times its size, which cannot be told from doing it in
one step."""


def _resize(
    image: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float] | None = None
) -> Image.Image:
    return image.resize(size, Image.Resampling.BICUBIC, box=box, reducing_gap=_GAP)


def _serve() -> None:
    """Decodes what standard input asks for, a line of JSON at a time, until it ends.

    The first line says where and how: `file`, `offset`, `size`, `fit`, `what`, `levels`. Each further line is a job,
    `rows` and `paths`; the pixels are written to their places in the file, and the answer is a line on standard output.
    """
    global _turn_file

    warnings.simplefilter("ignore")
    print("ready", flush=True)
    setting = json.loads(sys.stdin.readline())
    _turn_file = descriptor = os.open(setting["file"], os.O_WRONLY)
    for line in sys.stdin:
        job = json.loads(line)
        try:
            answer: dict[str, Any] = {"outcomes": decode_to(descriptor, setting, job["rows"], job["paths"])}
        except OSError as error:
            answer = {"errno": error.errno}
        print(json.dumps(answer), flush=True)


def decode_to(
    descriptor: int, setting: Mapping[str, Any], numbers: Sequence[int], paths: Sequence[str]
) -> list[dict[str, Any]]:
    """Decodes files to the rows of a file that have these numbers, and says what became of each; see `decode_rows`.

    What has the number -1 is only looked at.

    Raises:
        OSError: a row cannot be written.
    """
    size = setting["size"]
    rows, outcomes = decode_rows(paths, size, setting["fit"], setting["what"], setting["levels"])
    for number, row in zip(numbers, rows, strict=True):
        if number >= 0:
            write_all(descriptor, row, setting["offset"] + number * size * size * 3)
    return outcomes


if __name__ == "__main__":
    # Who started this process may be gone: then there is nobody to answer, and nothing to say.
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        _serve()

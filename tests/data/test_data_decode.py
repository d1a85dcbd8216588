from __future__ import annotations

import io
import os
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from repertoire.data import _decode
from repertoire.data._decode import MAX_BYTES, decode, decode_rows, dimensions, plain_reason, read_file, write_all


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def halves(width: int = 32, height: int = 32) -> Image.Image:
    """Red on the left, blue on the right, the top row green."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0] = pixels[:, width // 2 :, 2] = 255
    pixels[: height // 4] = (0, 255, 0)
    return Image.fromarray(pixels)


@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 40), st.sampled_from(["crop", "squash", "pad"]))
@settings(max_examples=40, deadline=None)
def test_any_size_becomes_the_square(width: int, height: int, size: int, fit: str):
    pixels = decode(encoded(Image.new("RGB", (width, height), (10, 20, 30))), size, fit)
    assert pixels.shape == (size, size, 3)
    assert pixels.dtype == np.uint8
    colour = (pixels == (10, 20, 30)).all(axis=-1)
    assert colour.all() if fit != "pad" or width == height else colour.any()


def test_an_image_of_the_right_size_is_not_touched():
    pixels = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    assert (decode(encoded(Image.fromarray(pixels)), 24) == pixels).all()


def test_crop_keeps_the_centre():
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    assert (decode(encoded(Image.fromarray(pixels)), 20, "crop") == pixels[:, 5:25]).all()


def test_pad_keeps_everything_between_bars():
    pixels = decode(encoded(Image.new("RGB", (40, 20), "white")), 20, "pad")
    assert (pixels[5:15] == 255).all()
    assert (pixels[:5] == 0).all()
    assert (pixels[15:] == 0).all()


def test_squash_keeps_everything():
    left, right = decode(encoded(halves(64, 16)), 16, "squash")[8, [2, 13]]
    assert left[0] > 200 > right[0]
    assert right[2] > 200 > left[2]


def test_shrinking_is_antialiased():
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255
    assert abs(decode(encoded(Image.fromarray(stripes)), 16).astype(int) - 128).max() < 25


def test_a_large_jpeg_decoded_at_a_fraction_is_the_same_picture():
    y, x = np.mgrid[0:1, 0:1:800j], np.mgrid[0:1:800j, 0:1]
    pixels = (np.stack(np.broadcast_arrays(y[1], x[0], (y[1] + x[0]) / 2), -1) * 255).astype(np.uint8)
    jpeg, png = (decode(encoded(Image.fromarray(pixels), kind), 20).astype(int) for kind in ("JPEG", "PNG"))
    assert abs(jpeg - png).max() <= 6


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(orientation: int):
    # What a camera stores that was held so that the upright picture is `halves`: the inverse of the rotation to apply.
    stored_as = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # orientation to the Transpose that undoes its correction
    upright = halves(40, 40)
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose(stored_as[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    for kind in ("JPEG", "PNG", "TIFF"):
        pixels = decode(encoded(stored, kind, exif=exif), 40)
        assert pixels[3, 20].argmax() == 1, "the top is green"
        assert pixels[30, 5].argmax() == 0, "the left is red"
        assert pixels[30, 35].argmax() == 2, "the right is blue"


def test_damaged_exif_is_no_rotation():
    pixels = decode(encoded(halves(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff\xff"), 32)
    assert pixels[3, 16].argmax() == 1


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "RGB", "RGBA", "LA"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF"])
def test_modes_become_rgb(mode: str, kind: str):
    image = Image.new("RGB", (16, 16), (255, 255, 255)).convert(mode)
    try:
        data = encoded(image, kind)
    except (OSError, ValueError):
        pytest.skip(f"{kind} has no {mode}")
    assert (decode(data, 8) >= 250).all()


def test_cmyk_colours():
    pixels = decode(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"), 8)
    assert pixels[4, 4, 0] > 200
    assert (pixels[4, 4, 1:] < 60).all()


def test_transparent_shows_white():
    layer = Image.new("RGBA", (8, 8), (200, 0, 0, 0))
    assert (decode(encoded(layer), 8) == 255).all()
    layer.putalpha(128)
    assert abs(decode(encoded(layer), 8)[0, 0].astype(int) - (227, 127, 127)).max() <= 1


def test_a_transparent_palette_entry_and_colour_show_white():
    palette = Image.new("P", (8, 8), 3)
    palette.putpalette([0, 0, 0] * 256)
    assert (decode(encoded(palette, transparency=3), 8) == 255).all()
    assert (decode(encoded(palette, "GIF", transparency=3), 8) == 255).all()
    assert (decode(encoded(Image.new("RGB", (8, 8), (1, 2, 3)), transparency=(1, 2, 3)), 8) == 255).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled(kind: str):
    ramp = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (64, 1))
    pixels = decode(encoded(Image.fromarray(ramp), kind), 64)
    assert abs(pixels[0, :, 0].astype(float) - ramp[0] / 257).max() <= 0.51
    assert (pixels[..., 0] == pixels[..., 2]).all()


def test_dark_sixteen_bits_stay_dark():
    assert (decode(encoded(Image.fromarray(np.full((8, 8), 200, np.uint16))), 8) <= 1).all()


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.0, 255.0), (-3.0, 5.0), (0.0, 1e6)])
def test_floats_are_scaled_between_the_levels_of_their_set(low: float, high: float):
    ramp = np.tile(np.linspace(low, high, 64, dtype=np.float32), (64, 1))
    pixels = decode(encoded(Image.fromarray(ramp), "TIFF"), 64, levels={"float32": (low, high)})
    assert abs(pixels[0, :, 0].astype(float) - np.linspace(0, 255, 64)).max() <= 1


def test_32_bit_integers_are_scaled_between_levels_and_clipped():
    ramp = np.tile(np.linspace(-1000, 10**6, 64).astype(np.int32), (64, 1))
    data = encoded(Image.fromarray(ramp), "TIFF")
    pixels = decode(data, 64, levels={"int32": (-1000, 10**6)})
    assert (pixels[0, 0], pixels[0, -1]) == (pytest.approx([0] * 3), pytest.approx([255] * 3))
    assert (decode(data, 64, levels={"int32": (0, 500_000)})[0, :, 0] == 255).sum() == 32


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_what_white_is_is_not_guessed_from_one_image(dtype: type):
    with pytest.raises(ValueError, match=r"32 values from 0 to 200, of which only its data set can say"):
        decode(encoded(Image.fromarray(np.linspace(0, 200, 64, dtype=dtype).reshape(8, 8)), "TIFF"), 8)


def deep_png(values: np.ndarray) -> bytes:
    """A PNG of 16 bits in each of three channels, or four, which Pillow does not write."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    height, width, channels = values.shape
    return png(struct.pack(">2I5B", width, height, 16, 2 if channels == 3 else 6, 0, 0, 0), rows)


def deep_tiff(values: np.ndarray, order: str, deflate: bool) -> bytes:
    """The same as a TIFF, in either order of bytes, compressed or not."""
    data = values.astype(f"{order}u2").tobytes()
    data = zlib.compress(data) if deflate else data
    height, width, channels = values.shape
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, channels, 0), (259, 3, 1, 8 if deflate else 1)]
    tags += [(262, 3, 1, 2), (273, 4, 1, 0), (277, 3, 1, channels), (278, 4, 1, height), (279, 4, 1, len(data))]
    bits = 8 + 2 + 12 * len(tags) + 4
    place = {258: bits, 273: bits + 2 * channels}
    out = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(tags))
    for tag, kind, count, value in tags:
        packed = struct.pack(f"{order}HH", value, 0) if kind == 3 and tag not in place else b""
        out += struct.pack(f"{order}HHI", tag, kind, count)
        out += packed or struct.pack(f"{order}I", place.get(tag, value))
    return out + struct.pack(f"{order}I", 0) + struct.pack(f"{order}{channels}H", *[16] * channels) + data


def test_twelve_bits_of_colour_in_sixteen():
    values = np.random.default_rng(0).integers(0, 4096, (8, 8, 3))
    pixels = decode(deep_png(values), 8, levels={"uint16": (0, 4095)})
    assert (pixels == np.rint(values * (255 / 4095))).all()
    assert abs(decode(deep_png(16 * values), 8).astype(float) - 16 * values / 257).max() <= 1
    for order, deflate in (("<", False), (">", False), ("<", True), (">", True)):
        assert (decode(deep_tiff(values, order, deflate), 8, levels={"uint16": (0, 4095)}) == pixels).all()
    layer = np.concatenate([values, np.full((8, 8, 1), 65535)], axis=2)
    assert (decode(deep_png(layer), 8, levels={"uint16": (0, 4095)}) == pixels).all()
    layer[..., 3] = 0
    assert (decode(deep_png(layer), 8, levels={"uint16": (0, 4095)}) == 255).all()


def test_a_row_of_more_than_eight_bits_is_only_looked_at(tmp_path: Path):
    values = np.arange(64, dtype=np.uint16).reshape(8, 8) * 60
    (tmp_path / "grey.png").write_bytes(encoded(Image.fromarray(values)))
    (tmp_path / "colour.png").write_bytes(deep_png(np.stack([values] * 3, -1)))
    paths = [str(tmp_path / name) for name in ("grey.png", "colour.png")]
    rows, outcomes = decode_rows(paths, 8, "crop")
    assert rows == [bytes(192)] * 2
    assert [outcome["range"] for outcome in outcomes] == [("uint16", 0, 3780), ("uint16", 0, 3839)]
    rows, _ = decode_rows(paths, 8, "crop", levels={"uint16": (0, 4095)})
    assert (np.frombuffer(rows[0], np.uint8).reshape(8, 8, 3)[..., 0] == np.rint(values * (255 / 4095))).all()
    assert rows[0] == rows[1]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "CMYK", "I;16", "F", "1"])
@pytest.mark.parametrize("fit", ["crop", "squash", "pad"])
def test_converting_in_bands_is_the_same_picture(mode: str, fit: str, monkeypatch: pytest.MonkeyPatch):
    y, x = np.mgrid[0:240, 0:400]
    wave = (np.sin(x / 40) * np.cos(y / 30) + 1) / 2
    if mode == "I;16":
        image = Image.fromarray((wave * 65535).astype(np.uint16))
    elif mode == "F":
        image = Image.fromarray(wave.astype(np.float32))
    else:
        image = Image.fromarray((wave * 255).astype(np.uint8)).convert(mode)
    data = encoded(image, "TIFF")
    levels = {"float32": (0.0, 1.0)}
    whole = decode(data, 16, fit, levels).astype(int)
    monkeypatch.setattr(_decode, "_BAND_PIXELS", 3000)
    assert abs(decode(data, 16, fit, levels) - whole).max() == 0
    plain = np.asarray(_decode._square(Image.fromarray(whole_rgb(image, wave, mode)), 16, fit, _decode._rgb))
    assert abs(plain - whole).max() <= (6 if mode == "1" else 2), "the crop reads no pixel outside its box"


def whole_rgb(image: Image.Image, wave: np.ndarray, mode: str) -> np.ndarray:
    if mode in ("I;16", "F"):
        return np.repeat(np.rint(wave * 255).astype(np.uint8)[..., None], 3, axis=-1)
    return np.asarray(image.convert("RGB"))


def test_an_image_that_takes_too_much_memory_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_decode, "MAX_MEMORY", 4 * 99 * 100)
    with pytest.raises(ValueError, match="takes 40,000 bytes of memory"):
        decode(encoded(Image.new("RGBA", (100, 100))), 8)
    assert decode(encoded(Image.new("L", (100, 100))), 8).shape == (8, 8, 3)
    assert decode(encoded(Image.new("RGB", (600, 600)), "JPEG"), 8).shape == (8, 8, 3), "decoded at an eighth"


def test_large_images_are_decoded_one_after_another(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_decode, "_ONE_AT_A_TIME", 1000)
    inside, most = [], []
    original = _decode._square

    def watched(*arguments: object) -> Image.Image:
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.02)
        inside.pop()
        return original(*arguments)

    monkeypatch.setattr(_decode, "_square", watched)
    data = encoded(halves())
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: decode(data, 8), range(6)))
    assert max(most) == 1


@pytest.mark.parametrize("mode", ["L", "P", "1", "RGB", "RGBA", "I;16", "F"])
def test_a_mask_is_whatever_is_not_black(mode: str, tmp_path: Path):
    on = np.zeros((16, 16), bool)
    on[4:12, 2:9] = True
    if mode == "I;16":
        image = Image.fromarray(on.astype(np.uint16))
    elif mode == "F":
        image = Image.fromarray(on.astype(np.float32) * 0.01)
    elif mode == "RGB":
        image = Image.fromarray(np.stack([0 * on, 0 * on, on], -1).astype(np.uint8))
    elif mode == "RGBA":
        image = Image.fromarray(np.stack([0 * on + 9, 0 * on, 0 * on, on * 255], -1).astype(np.uint8))
    elif mode == "P":
        image = Image.fromarray(on.astype(np.uint8))
        image.putpalette([0, 0, 0, 0, 0, 1])
    else:
        image = Image.fromarray(on if mode == "1" else on.astype(np.uint8))
    image.save(tmp_path / "mask", "TIFF")
    (row,), (outcome,) = decode_rows([str(tmp_path / "mask")], 16, "crop", "mask")
    assert "range" not in outcome
    assert ((np.frombuffer(row, np.uint8).reshape(16, 16, 3)[..., 0] > 127) == on).all()


def test_a_short_write_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, offset: real(file, data[:7], offset))
    with open(tmp_path / "file", "wb") as file:
        write_all(file.fileno(), bytes(range(100)), 3)
    assert (tmp_path / "file").read_bytes() == bytes(3) + bytes(range(100))
    monkeypatch.setattr(os, "pwrite", lambda *_: 0)
    with open(tmp_path / "file", "wb") as file, pytest.raises(OSError, match="No space left"):
        write_all(file.fileno(), b"x", 0)


def test_floats_that_are_no_numbers():
    with pytest.raises(ValueError, match="not finite"):
        decode(encoded(Image.fromarray(np.full((8, 8), np.nan, np.float32)), "TIFF"), 8)


def test_the_first_frame_of_an_animation():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (decode(data, 8)[0, 0] == (255, 0, 0)).all()


@given(st.integers(0, 400))
@settings(max_examples=60, deadline=None)
def test_a_file_cut_short_anywhere_is_an_error_or_an_image(length: int):
    for kind in ("JPEG", "PNG", "GIF"):
        data = encoded(halves(), kind)
        with suppress(ValueError):
            assert decode(data[: length * len(data) // 400], 8).shape == (8, 8, 3)


@given(st.binary(max_size=200))
@settings(max_examples=60, deadline=None)
def test_arbitrary_bytes_are_an_error(data: bytes):
    with pytest.raises(ValueError):
        decode(data, 8)
    with pytest.raises(ValueError):
        decode(b"\x89PNG\r\n\x1a\n" + data, 8)


def test_reasons_are_in_plain_words():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    cases = {
        b"": "is empty (0 bytes)",
        b"this is text, and no image": "is not an image, or of a format that is not supported",
        encoded(noise, "JPEG")[:20]: "is a damaged JPEG file",
        encoded(noise, "JPEG")[:2000]: "is truncated",
        encoded(noise, "PNG")[:2000]: "is truncated",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n": "is not an image, or of a format that is not supported",
    }
    for data, reason in cases.items():
        with pytest.raises(ValueError) as caught:
            decode(data, 8)
        assert str(caught.value) == reason


def png(header: bytes, rows: bytes) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def png_header(width: int, height: int) -> bytes:
    return png(struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0), b"\0" * 100)


@pytest.mark.parametrize("limit", [None, 89_478_485])
def test_a_bomb_is_refused_without_decoding(limit: int | None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(ValueError, match="decompression bomb"):
        decode(png_header(50_000, 50_000), 8)
    with pytest.raises(ValueError, match="decompression bomb"):
        dimensions(png_header(50_000, 50_000))


def test_dimensions_come_from_the_header():
    assert dimensions(png_header(300, 200)) == (300, 200)
    exif = Image.Exif()
    for orientation in range(1, 9):
        exif[0x0112] = orientation
        for kind in ("JPEG", "TIFF"):
            data = encoded(Image.new("RGB", (30, 20)), kind, exif=exif)
            assert dimensions(data) == ((30, 20) if orientation < 5 else (20, 30))
    with pytest.raises(ValueError, match="empty"):
        dimensions(b"")


def test_what_is_no_file_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "dangling.jpg").symlink_to("nothing")
    with open(tmp_path / "huge.jpg", "wb") as file:
        file.truncate(MAX_BYTES + 1)
    names = ["pipe.jpg", "loop.jpg", "dangling.jpg", "huge.jpg", "."]
    pixels, outcomes = decode_rows([os.path.join(tmp_path, name) for name in names], 8, "crop")
    assert pixels == [bytes(8 * 8 * 3)] * 5
    assert [outcome["reason"] for outcome in outcomes] == [
        "is not a regular file",
        "is a link that leads back to itself",
        "does not exist, or is a link to something that does not",
        f"has {MAX_BYTES + 1:,} bytes; more than {MAX_BYTES:,} are refused",
        "is not a regular file",
    ]


def test_permission_denied_in_plain_words():
    assert plain_reason(PermissionError(13, "Permission denied")) == "may not be read (permission denied)"
    assert plain_reason(OSError(5, "Input/output error")) == "cannot be read (Input/output error)"
    assert plain_reason(MemoryError(), b"x") == "does not fit into memory when decoded"


def test_a_file_just_written_can_be_told_from_the_same_file_written_again(tmp_path: Path):
    file = tmp_path / "image"
    file.write_bytes(b"1")
    _, before = read_file(str(file))
    file.write_bytes(b"2")
    assert read_file(str(file))[1] != before

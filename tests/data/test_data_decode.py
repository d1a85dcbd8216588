from __future__ import annotations

import io
import os
import struct
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from repertoire.data._decode import MAX_BYTES, decode, decode_rows, dimensions, plain_reason, read_file


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


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.0, 255.0), (0.0, 65535.0), (-3.0, 5.0), (0.0, 1e6)])
def test_floats_are_scaled(low: float, high: float):
    ramp = np.tile(np.linspace(low, high, 64, dtype=np.float32), (64, 1))
    pixels = decode(encoded(Image.fromarray(ramp), "TIFF"), 64)
    assert abs(pixels[0, :, 0].astype(float) - np.linspace(0, 255, 64)).max() <= 1


def test_32_bit_integers_are_scaled():
    ramp = np.tile(np.linspace(-1000, 10**6, 64).astype(np.int32), (64, 1))
    pixels = decode(encoded(Image.fromarray(ramp), "TIFF"), 64)
    assert (pixels[0, 0], pixels[0, -1]) == (pytest.approx([0] * 3), pytest.approx([255] * 3))
    small = np.tile(np.arange(64, dtype=np.int32), (64, 1))
    assert (decode(encoded(Image.fromarray(small), "TIFF"), 64)[0, :, 0] == np.arange(64)).all()


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


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("limit", [None, 89_478_485])
def test_a_bomb_is_refused_without_decoding(limit: int | None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(ValueError, match="decompression bomb"):
        decode(png_header(50_000, 50_000), 8)
    with pytest.raises(ValueError, match="decompression bomb"):
        dimensions(png_header(50_000, 50_000))


def test_dimensions_come_from_the_header():
    assert dimensions(png_header(300, 200)) == (300, 200)
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
    assert pixels == bytes(5 * 8 * 8 * 3)
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

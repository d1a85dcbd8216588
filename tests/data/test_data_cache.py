from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from repertoire.data import _cache, _decode, _pool
from repertoire.data._cache import Decoded, cache_directory, decode_once
from repertoire.data._levels import settle
from repertoire.data._seen import Seen
from repertoire.data._walk import walk
from repertoire.errors import DataError


def fill(folder: Path, count: int = 12, seed: int = 0) -> Path:
    """A folder of small random images, as PNG so that they decode exactly."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    for number in range(count):
        Image.fromarray(pixels[number]).save(folder / f"{number:04}.png")
    return folder


def opened(folder: Path, cache: Path, **options: Any) -> Decoded:
    tree = walk(folder)
    return decode_once(folder, tree.files, tree.signatures, **{"size": 8, "cache_dir": cache, **options})


def pixels(folder: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(folder / name)) for name in walk(folder).files])


def entries(cache: Path) -> list[Path]:
    return [path for path in (cache / "decoded").iterdir() if path.is_dir()]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are decoded, as it goes on."""
    names: list[str] = []
    original = _decode.decode_rows

    def noted(paths: list[str], *arguments: Any) -> Any:
        names.extend(os.path.basename(path) for path in paths)
        return original(paths, *arguments)

    monkeypatch.setattr(_decode, "decode_rows", noted)
    return names


def test_images_are_decoded_once(tmp_path: Path, decoded: list[str]):
    folder, cache = fill(tmp_path / "a"), tmp_path / "cache"
    first = opened(folder, cache)
    assert len(decoded) == 12
    second = opened(folder, cache)
    assert len(decoded) == 12
    for result in (first, second):
        assert isinstance(result.images, np.memmap)
        assert (result.images[result.rows] == pixels(folder)).all()
        assert not result.failures
    assert (first.keys == second.keys).all()


def test_keys_are_of_the_content(tmp_path: Path):
    folder = fill(tmp_path / "a", 3)
    shutil.copy(folder / "0001.png", folder / "9.png")
    keys = opened(folder, tmp_path / "cache").keys
    assert keys.dtype == np.uint64
    assert keys[1] == keys[3]
    assert len(set(keys.tolist())) == 3


def test_only_what_changed_is_decoded_again(tmp_path: Path, decoded: list[str]):
    folder, cache = fill(tmp_path / "a"), tmp_path / "cache"
    opened(folder, cache)
    decoded.clear()
    Image.new("RGB", (8, 8), "red").save(folder / "0003.png")
    Image.new("RGB", (8, 8), "blue").save(folder / "new.png")
    (folder / "0005.png").unlink()
    (folder / "broken.png").write_bytes(b"nothing")
    result = opened(folder, cache)
    assert sorted(decoded) == ["0003.png", "broken.png", "new.png"]
    assert result.failures == {11: "is not an image, or of a format that is not supported"}
    (folder / "broken.png").unlink()
    assert (np.delete(result.images[result.rows], 11, axis=0) == pixels(folder)).all()
    assert len(entries(cache)) == 1, "the former entry is removed"


def test_a_change_of_the_same_length_is_noticed(tmp_path: Path):
    folder, cache = tmp_path / "a", tmp_path / "cache"
    folder.mkdir()
    for level in range(4):
        Image.new("L", (8, 8), level).save(folder / "a.bmp")
        result = opened(folder, cache)
        assert (result.images[result.rows] == level).all()


def test_a_file_replaced_with_its_length_and_time_kept_is_noticed(tmp_path: Path):
    """Archives are reproducible because all their times are one, and copies that keep times do the same."""
    folder, cache = fill(tmp_path / "a"), tmp_path / "cache"
    for name in walk(folder).files:
        Image.open(folder / name).save(folder / name, "BMP")
        os.utime(folder / name, ns=(0, 0))
    opened(folder, cache)
    for number, name in enumerate(walk(folder).files):
        with open(folder / name, "r+b") as file:  # the same inode
            file.seek(-64, os.SEEK_END)
            file.write(bytes([number]) * 64)
        os.utime(folder / name, ns=(0, 0))
    result = opened(folder, cache)
    assert (result.images[result.rows] == pixels(folder)).all()


def test_images_of_more_than_eight_bits_have_one_white(tmp_path: Path, decoded: list[str]):
    folder, cache = tmp_path / "a", tmp_path / "cache"
    folder.mkdir()
    values = {"dim.png": np.full((8, 8), 1000), "bright.png": np.full((8, 8), 3000)}
    for name, value in values.items():
        Image.fromarray(value.astype(np.uint16)).save(folder / name)
    fill(folder, 2)
    result = opened(folder, cache)
    assert result.levels == {"uint16": (0.0, 4095.0)}
    found = dict(zip(walk(folder).files, result.images[result.rows], strict=True))
    assert {name: int(found[name][0, 0, 0]) for name in values} == {"dim.png": 62, "bright.png": 187}
    decoded.clear()
    opened(folder, cache)
    assert not decoded
    Image.fromarray(np.full((8, 8), 60000, dtype=np.uint16)).save(folder / "sun.png")
    result = opened(folder, cache)
    found = dict(zip(walk(folder).files, result.images[result.rows], strict=True))
    assert [int(found[name][0, 0, 0]) for name in ("bright.png", "dim.png", "sun.png")] == [12, 4, 233]
    assert (found["0000.png"] == np.asarray(Image.open(folder / "0000.png"))).all()
    assert sorted(decoded) == ["bright.png", "dim.png", "sun.png", "sun.png"], "those of 8 bits are not read again"
    fixed = opened(folder, cache, levels={"uint16": (0.0, 4095.0)})
    found = dict(zip(walk(folder).files, fixed.images[fixed.rows], strict=True))
    assert [int(found[name][0, 0, 0]) for name in ("bright.png", "dim.png", "sun.png")] == [187, 62, 255]


@pytest.mark.parametrize(
    ("ranges", "levels"),
    [
        ([], {}),
        ([("uint16", 0, 65535)], {"uint16": (0, 65535)}),
        ([("uint16", 5, 200), ("uint16", 5, 255)], {"uint16": (0, 255)}),
        ([("uint16", 5, 256)], {"uint16": (0, 1023)}),
        ([("int32", -4, 100), ("int32", 3, 70_000)], {"int32": (-4, 70_000)}),
        ([("int32", 3, 70_000)], {"int32": (0, 70_000)}),
        ([("float32", 0.0, 0.9)], {"float32": (0, 1)}),
        ([("float32", 0.0, 0.9), ("float32", 0.0, 1.01)], {"float32": (0, 1.01)}),
        ([("float32", 0.001, 0.002)], {"float32": (0, 0.002)}),
        ([("float32", -1.0, 1.0)], {"float32": (-1, 1)}),
        ([("float32", 0.0, 0.0)], {"float32": (0, 1)}),
    ],
)
def test_black_and_white_of_a_set(ranges: list[tuple[str, float, float]], levels: dict[str, tuple[float, float]]):
    assert settle(ranges) == levels


def test_a_short_write_leaves_no_black_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder, cache = fill(tmp_path / "a"), tmp_path / "cache"
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, offset: real(file, data[:100], offset))
    result = opened(folder, cache)
    assert (result.images[result.rows] == pixels(folder)).all()


def test_an_unchanged_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder, cache = fill(tmp_path / "a"), tmp_path / "cache"
    opened(folder, cache)
    monkeypatch.setattr(_cache, "decode_into", lambda *_, **__: pytest.fail("decodes"))
    monkeypatch.setattr(_cache, "open_file", lambda *_: pytest.fail("opens a file"))
    opened(folder, cache)


def test_equal_folders_share_an_entry(tmp_path: Path):
    folder, cache = fill(tmp_path / "a"), tmp_path / "cache"
    other = tmp_path / "b"
    other.mkdir()
    for number, name in enumerate(sorted(os.listdir(folder), reverse=True)):
        shutil.copy(folder / name, other / f"renamed {number}.png")
    opened(folder, cache)
    result = opened(other, cache)
    assert len(entries(cache)) == 1
    assert (result.images[result.rows] == pixels(other)).all()


def test_size_and_fit_have_entries_of_their_own(tmp_path: Path):
    folder, cache = fill(tmp_path / "a"), tmp_path / "cache"
    shapes = {opened(folder, cache, size=size, fit=fit).images.shape for size in (8, 5) for fit in ("crop", "pad")}
    assert shapes == {(12, 8, 8, 3), (12, 5, 5, 3)}
    assert len(entries(cache)) == 4


def test_failures_are_remembered_and_tried_again_when_they_may_have_gone(tmp_path: Path, decoded: list[str]):
    folder, cache = fill(tmp_path / "a", 2), tmp_path / "cache"
    (folder / "dangling.png").symlink_to(tmp_path / "later.png")
    (folder / "empty.png").touch()
    expected = {2: "does not exist, or is a link to something that does not", 3: "is empty (0 bytes)"}
    assert opened(folder, cache).failures == expected
    decoded.clear()
    again = opened(folder, cache)
    assert again.failures == expected
    assert again.rows[2:].tolist() == [-1, -1]
    assert not decoded
    Image.new("RGB", (8, 8)).save(tmp_path / "later.png")
    assert opened(folder, cache).failures == {3: expected[3]}


@pytest.mark.parametrize("workers", [1, 3])
def test_processes_give_the_same_as_one(tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch):
    folder = fill(tmp_path / "a", 40)
    for name in (
        "a name with spaces.png",
        "quote'\".png",
        "new\nline.png",
        "<script>.png",
        "ünïcödé 図.png",
        "\udcff.png",
    ):
        Image.new("RGB", (8, 8), "red").save(tmp_path / "red.png")
        os.rename(tmp_path / "red.png", folder / name)
    (folder / "zz.png").write_bytes(b"broken")
    monkeypatch.setattr(_pool, "_CHUNK_FILES", 4)
    result = opened(folder, tmp_path / "cache", workers=workers)
    assert list(result.failures) == [walk(folder).files.index("zz.png")]
    (folder / "zz.png").unlink()
    keep = np.flatnonzero(result.rows >= 0)
    assert len(keep) == 46
    assert (result.images[result.rows[keep]] == pixels(folder)).all()
    assert not opened(folder, tmp_path / "cache").failures


def test_a_decoder_that_crashes_costs_its_file_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = fill(tmp_path / "a", 10)
    program = tmp_path / "decoder.py"
    source = Path(_decode.__file__).read_text()
    program.write_text(
        source.replace("            data, out", '            "0004" in path and os._exit(9)\n            data, out')
    )
    monkeypatch.setattr(_pool, "_CHUNK_FILES", 5)
    monkeypatch.setattr(_pool, "_PROGRAM", str(program))
    result = opened(folder, tmp_path / "cache", workers=2)
    assert result.failures == {4: "made the decoder crash"}
    good = np.flatnonzero(result.rows >= 0)
    assert (result.images[result.rows[good]] == pixels(folder)[good]).all()


def test_a_decoding_process_starts_light():
    code = "import runpy, sys; runpy.run_path(sys.argv[1]); assert not {'numpy', 'torch'} & {*sys.modules}"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-S", "-P", "-c", code, _decode.__file__], check=True, env=environment)


@pytest.mark.parametrize("program", ["missing", "broken"])
def test_without_processes_it_is_done_in_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str):
    folder = fill(tmp_path / "a", 10)
    monkeypatch.setattr(_pool, "_CHUNK_FILES", 3)
    if program == "missing":
        monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    else:
        (tmp_path / "decoder.py").write_text("raise SystemExit(1)")
        monkeypatch.setattr(_pool, "_PROGRAM", str(tmp_path / "decoder.py"))
    result = opened(folder, tmp_path / "cache", workers=2)
    assert (result.images[result.rows] == pixels(folder)).all()


BUILD = """
import sys
import types
package = sys.modules["repertoire.data"] = types.ModuleType("repertoire.data")
package.__path__ = [sys.argv.pop(1)]  # without what its __init__ imports: torch, and seconds with it
from repertoire.data import _decode, _pool
from repertoire.data._cache import decode_once
from repertoire.data._walk import walk
folder, cache, log, pause = sys.argv[1:]
original = _decode.decode_rows
def slowly(paths, *arguments):
    import time
    with open(log, "a") as file:
        file.write("".join(path + "\\n" for path in paths))
    time.sleep(float(pause))
    return original(paths, *arguments)
_decode.decode_rows = slowly
_pool._CHUNK_FILES = 4
tree = walk(folder)
print("begin", flush=True)
result = decode_once(folder, tree.files, tree.signatures, size=8, cache_dir=cache, workers=1)
print(int(result.images[result.rows].astype(int).sum()), flush=True)
"""


def building(folder: Path, cache: Path, log: Path, pause: float) -> subprocess.Popen[str]:
    source = Path(_cache.__file__).parent
    process = subprocess.Popen(
        [sys.executable, "-c", BUILD, *map(str, (source, folder, cache, log, pause))],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(source.parents[1])},
    )
    assert process.stdout is not None
    return process


def test_two_processes_do_the_work_once(tmp_path: Path):
    folder, cache, log = fill(tmp_path / "a"), tmp_path / "cache", tmp_path / "log"
    processes = [building(folder, cache, log, 0.2) for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0].split() for process in processes]
    assert outputs == [["begin", str(int(pixels(folder).astype(int).sum()))]] * 2
    assert len(log.read_text().splitlines()) == 12
    assert len(entries(cache)) == 1


def test_a_killed_build_is_cleared_away_by_the_next(tmp_path: Path):
    folder, cache, log = fill(tmp_path / "a"), tmp_path / "cache", tmp_path / "log"
    process = building(folder, cache, log, 30)
    deadline = time.monotonic() + 30
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (left,) = entries(cache)
    assert left.name.startswith("building-")
    elsewhere = fill(tmp_path / "b", 2, seed=1)
    opened(elsewhere, cache)
    assert not left.exists(), "a build of another folder clears it away as well"
    left.mkdir()
    result = opened(folder, cache)
    assert (result.images[result.rows] == pixels(folder)).all()
    assert not any(path.name.startswith("building-") for path in entries(cache))


def test_a_full_disk_is_found_out_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder, cache = fill(tmp_path / "a"), tmp_path / "cache"
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**6, 10**6 - 17, 17))
    with pytest.raises(DataError, match=r"need [\d,]+ bytes in .* where 17 are free") as caught:
        opened(folder, cache)
    assert "6,784" in str(caught.value)
    assert not entries(cache)


@pytest.mark.parametrize("call", ["pwrite", "fsync"])
def test_a_disk_that_fills_up_leaves_nothing_half_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str):
    folder, cache = fill(tmp_path / "a"), tmp_path / "cache"

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(DataError, match="are free"):
            opened(folder, cache)
    assert not entries(cache)
    assert not opened(folder, cache).failures


def test_a_full_disk_in_a_decoding_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder, cache = fill(tmp_path / "a"), tmp_path / "cache"
    program = tmp_path / "decoder.py"
    source = Path(_decode.__file__).read_text()
    program.write_text(source.replace("os.pwrite(", "(lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, '')))("))
    monkeypatch.setattr(_pool, "_CHUNK_FILES", 3)
    monkeypatch.setattr(_pool, "_PROGRAM", str(program))
    with pytest.raises(DataError, match="are free"):
        opened(folder, cache, workers=2)
    assert not entries(cache)


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(DataError, match=r"cannot be written .*REPERTOIRE_CACHE"):
        opened(fill(tmp_path / "a"), tmp_path / "cache")


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1)


def misstate(file: Path) -> None:
    index = json.loads(file.read_text())
    file.write_text(json.dumps(index | {"keys": index["keys"][1:]}))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("images.npy", cut),
        ("images.npy", Path.unlink),
        ("images.npy", lambda file: file.write_bytes(b"x" * file.stat().st_size)),
        ("index.json", cut),
        ("index.json", Path.unlink),
        ("index.json", lambda file: file.write_text("[]")),
        ("index.json", misstate),
    ],
)
def test_a_damaged_entry_is_made_again(tmp_path: Path, name: str, damage: Any, decoded: list[str]):
    folder, cache = fill(tmp_path / "a"), tmp_path / "cache"
    opened(folder, cache)
    (entry,) = entries(cache)
    damage(entry / name)
    decoded.clear()
    result = opened(folder, cache)
    assert len(decoded) == 12
    assert (result.images[result.rows] == pixels(folder)).all()


def test_a_damaged_memory_only_costs_time(tmp_path: Path, decoded: list[str]):
    folder, cache = fill(tmp_path / "a"), tmp_path / "cache"
    opened(folder, cache)
    (memory,) = (cache / "decoded").glob("*.npz")
    for damage in (cut, Path.unlink, lambda file: file.write_bytes(b"")):
        damage(memory)
        decoded.clear()
        result = opened(folder, cache)
        assert len(decoded) == 12
        assert (result.images[result.rows] == pixels(folder)).all()


def test_seen_survives_a_file(tmp_path: Path):
    names = ["a", "new\nline", "\udcff", "ü"]
    outcomes = [
        {"signature": (1, 2, 3, 4), "key": 2**64 - 1},
        {"reason": "x"},
        {"signature": (4, 5, 6, 7), "key": 7},
        {},
    ]
    seen = Seen.of(names, outcomes)
    seen.save(tmp_path / "seen.npz")
    again = Seen.load(tmp_path / "seen.npz")
    assert again.names == names
    for field in ("looks", "keys", "read"):
        assert (getattr(again, field) == getattr(seen, field)).all()
    now = np.array([[4, 5, 6, 7], [1, 2, 3, 5], [-1] * 4, [9] * 4])
    assert again.unchanged(["\udcff", "a", "new\nline", "other"], now) == {0: 7}
    assert Seen.load(tmp_path / "missing.npz").names == []


def test_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert cache_directory(tmp_path) == tmp_path
    monkeypatch.setenv("REPERTOIRE_CACHE", str(tmp_path / "from environment"))
    assert cache_directory() == tmp_path / "from environment"
    monkeypatch.delenv("REPERTOIRE_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_directory() == tmp_path / ".cache" / "repertoire"

"""An index of two runs on the command line: asked about probes, searched in three ways, and taught."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from pkgutil import resolve_name

import numpy as np
import pytest

from repertoire import train
from repertoire.cli import main
from repertoire.zoo import Index


@pytest.fixture(scope="module")
def places(tiny: Path, options: dict[str, object], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Images of bright rows and of bright columns, both of them as probes, and a run on either."""
    root = tmp_path_factory.mktemp("zoo")
    with np.load(tiny) as held:
        rows, labels = held["images"], held["labels"]
    columns = rows.swapaxes(1, 2)
    np.savez(root / "columns.npz", images=columns, labels=labels, classes=np.array(["left", "centre", "right"]))
    both = np.concatenate([rows[:90], columns[:90]])
    np.savez(root / "both.npz", images=both, labels=np.arange(180) % 2, classes=np.array(["even", "odd"]))
    for name, data in (("rows", tiny), ("columns", root / "columns.npz")):
        train.fit(**{**options, "data": str(data), "epochs": 10}, out=root / name, quiet=True)
    return {"root": root, "rows": tiny, "columns": root / "columns.npz", "probes": root / "both.npz"}


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(["zoo", *map(str, arguments)])
    out, err = capsys.readouterr()
    return int(stop.value.code or 0), out, err


def names(out: str) -> list[str]:
    return [Path(row["run"]).name for row in csv.DictReader(io.StringIO(out))]


def test_runs_are_found_by_what_they_know(places, capsys):
    root = places["root"]
    zoo = ["--zoo", root / "zoo", "--device", "cpu"]
    code, out, err = said(capsys, "add", root / "rows", "--zoo", root / "first", "--reference", root / "rows")
    assert code == 0, err
    assert f"a new index: runs are asked about images of {places['rows']}" in out
    code, out, err = said(
        capsys, "add", root / "rows", *zoo, "--probes", places["probes"], "--reference", root / "rows"
    )
    assert code == 0, err
    code, out, err = said(capsys, "add", root / "columns", *zoo, "--count", 9)
    assert code == 2
    assert "--count goes with a new index" in err
    code, out, err = said(capsys, "add", root / "columns", *zoo)
    assert code == 0, err
    assert "2 runs in" in out
    for kind in ("rows", "columns"):
        code, out, err = said(capsys, "search", places[kind], *zoo, "--by", "leep")
        assert (code, names(out)[0]) == (0, kind), err
    code, out, err = said(capsys, "search", places["rows"], *zoo, "--by", "logme")
    assert (code, sorted(names(out))) == (0, ["columns", "rows"]), err
    code, out, err = said(capsys, "search", places["rows"], *zoo, "--top", 1)
    assert (code, len(names(out))) == (0, 1), err
    code, out, err = said(capsys, "learn", *zoo)
    assert code == 0, err
    assert f"{places['rows']}: served best by {root / 'rows'}" in out
    assert f"{places['columns']}: served best by" in out
    assert Index.load(root / "zoo").alignment is not None
    code, out, err = said(capsys, "search", places["columns"], *zoo)
    assert (code, sorted(names(out))) == (0, ["columns", "rows"]), err
    # What a run was trained on may be gone; it is still asked about what the others were.
    resolve_name("repertoire.zoo._runs:_embedded").cache_clear()
    places["columns"].rename(root / "elsewhere.npz")
    try:
        code, out, err = said(capsys, "learn", *zoo)
    finally:
        (root / "elsewhere.npz").rename(places["columns"])
    assert code == 0, err
    assert f"{root / 'columns'}: its data is left out" in out
    assert "served best by" in out

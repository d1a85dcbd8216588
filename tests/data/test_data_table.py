"""Tables of paths and labels: which column is what, what the targets are, and which files are meant."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from repertoire.data import SourceRequest, Splits, load, load_folder_set
from repertoire.data._columns import read_table
from repertoire.errors import DataError, UnreadableImages
from repertoire.registry import build


def images(root: Path, count: int = 20, suffix: str = ".png", blue: int = 0) -> list[str]:
    """Images 0.png to 19.png, each of one brightness, that of its number."""
    root.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.new("RGB", (8, 8), (10 * number, 10 * number, blue)).save(root / f"{number}{suffix}", "PNG")
    return [f"{number}{suffix}" for number in range(count)]


def number_of(samples: Any) -> np.ndarray:
    """Which image each sample is, from its pixels."""
    return samples.pixels(slice(None))[:, 0, 0, 0] // 10


def parts(splits: Splits) -> tuple[Any, ...]:
    return splits.train, splits.val, splits.test


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_paths_and_classes(tmp_path: Path):
    names = images(tmp_path)
    file = write(
        tmp_path / "data.csv", "path,label", *(f"{name},{'dog' if i % 2 else 'cat'}" for i, name in enumerate(names))
    )
    splits = load(file)
    assert splits.classes == ("cat", "dog")
    assert splits.train.size == (8, 8)
    assert [len(part) for part in parts(splits)] == [14, 2, 4]
    for part in parts(splits):
        assert (part.labels == number_of(part) % 2).all()
    assert splits.source == f"{tmp_path.name}/data.csv"


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize(
    ("path", "label"), [("filename", "class"), ("Image_ID", "Category"), ("FILE", "target"), ("image", "y")]
)
def test_names_of_columns_and_separators(tmp_path: Path, separator: str, path: str, label: str):
    names = images(tmp_path)
    rows = (separator.join((str(i % 2), "x", name)) for i, name in enumerate(names))
    file = tmp_path / "data.csv"
    text = "\ufeff" + "\r\n".join([separator.join((label, "remark", path)), *rows]) + "\r\n\r\n"
    file.write_bytes(text.encode())
    splits = load(file)
    assert splits.classes == ("0", "1")
    assert any("Columns of data.csv that were not used: remark." in note for note in splits.notes)
    for part in parts(splits):
        assert (part.labels == number_of(part) % 2).all()


def test_whole_numbers_are_classes_in_their_order(tmp_path: Path):
    file = write(tmp_path / "data.csv", "path,label", "a,10", "b,9", "c,10", "d,")
    table = read_table(file)
    assert table.classes == ("9", "10")
    assert table.labels.tolist() == [1, 0, 1, -1]


def test_split_and_group(tmp_path: Path):
    names = images(tmp_path)
    split = ["Training"] * 10 + ["valid"] * 4 + ["test"] * 4 + ["unlabelled"] * 2
    rows = (f"{name},{i % 2},{part}" for i, (name, part) in enumerate(zip(names, split, strict=True)))
    splits = load(write(tmp_path / "a.csv", "path,label,split", *rows))
    assert [sorted(number_of(part).tolist()) for part in (*parts(splits), splits.extra["unlabelled"])] == [
        list(range(10)),
        list(range(10, 14)),
        list(range(14, 18)),
        [18, 19],
    ]
    rows = (f"{name},{i % 2},p{i // 4}" for i, name in enumerate(names))
    splits = load(write(tmp_path / "b.csv", "path,label,patient", *rows))
    sides = [set((number_of(part) // 4).tolist()) for part in parts(splits)]
    assert sum(map(len, sides)) == 5
    with pytest.raises(DataError, match="the column of parts has seventh; expected train, val, test"):
        load(write(tmp_path / "c.csv", "path,label,split", "0.png,1,seventh"))


@pytest.mark.parametrize("mark", [";", "|"])
def test_several_labels_in_one_column(tmp_path: Path, mark: str):
    rows = [f"a,sea{mark} sky", "b,sky", f"c,{mark}", "d,?"]
    table = read_table(write(tmp_path / "t.csv", "path,tags", *rows))
    assert table.classes == ("sea", "sky")
    assert table.labels.tolist() == [[1, 1], [0, 1], [0, 0], [255, 255]]
    assert table.labels.dtype == np.uint8


def test_a_column_for_each_label(tmp_path: Path):
    table = read_table(write(tmp_path / "t.csv", "path,sea,sky", "a,1,0", "b,0.0,", "c,1,1"))
    assert table.classes == ("sea", "sky")
    assert table.labels.tolist() == [[1, 0], [0, 255], [1, 1]]
    one = write(tmp_path / "t.csv", "path,sea,sky", "a,1,0", "b,0,1")
    assert read_table(one, targets="classes").labels.tolist() == [0, 1]
    with pytest.raises(DataError, match="row 3 does not have a 1 in exactly one of the columns sea, sky"):
        read_table(write(tmp_path / "t.csv", "path,sea,sky", "a,1,0", "b,1,1"), targets="classes")


def test_numbers(tmp_path: Path):
    table = read_table(write(tmp_path / "t.csv", "path,label", "a,1.5", "b,2", "c,nan", "d,-1e3"))
    assert table.classes == ("label",)
    assert table.labels.dtype == np.float32
    assert table.labels[[0, 1, 3], 0].tolist() == [1.5, 2, -1000]
    assert math.isnan(table.labels[2, 0])
    table = read_table(write(tmp_path / "t.csv", "path,width,height", "a,3,4", "b,5,", "c,6,7"))
    assert table.classes == ("width", "height")
    assert np.isnan(table.labels[1]).all(), "a target is whole or none"
    assert read_table(write(tmp_path / "t.csv", "path,age", "a,30", "b,7")).labels.tolist() == [[30], [7]]
    whole = write(tmp_path / "t.csv", "path,label", "a,30", "b,7")
    assert read_table(whole).labels.tolist() == [1, 0]
    assert read_table(whole, targets="number").labels.tolist() == [[30], [7]]
    assert read_table(write(tmp_path / "t.csv", "path,species", "a,ape", "b,bat")).classes == ("ape", "bat")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([""], "is empty; expected a first line"),
        (["path,label"], "column names and no rows"),
        (["a.png,cat", "b.png,dog"], "has no column of paths"),
        (["path,split", "a,train"], "has no column of labels beside path, split"),
        (["path,path,label", "a,b,c"], "several columns named path"),
        (["path,label", "a,cat", "b,dog,eel"], "row 3 has 3 cells, and the first line 2; put text that holds ','"),
        (["path,label", "a,cat", "b,dog", "a,dog"], "a comes twice with different labels, in rows 2 and 4"),
        (["path,one,two", "a,x,1", "b,y,2"], "does not say which column holds the labels.*of text: one"),
    ],
)
def test_what_is_refused(tmp_path: Path, lines: list[str], message: str):
    with pytest.raises(DataError, match=message):
        read_table(write(tmp_path / "t.csv", *lines))


def test_more_that_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match="row 3 of column label is 'much', which is no finite number"):
        read_table(write(tmp_path / "t.csv", "path,label", "a,1", "b,much"), targets="number")
    (tmp_path / "t.csv").write_bytes("path,label\na,caf\u00e9\n".encode("latin-1"))
    with pytest.raises(DataError, match="is not text in UTF-8"):
        read_table(tmp_path / "t.csv")
    with pytest.raises(DataError, match="there is no file"):
        build("data", f"table:{tmp_path / 'none.csv'}", request=SourceRequest())
    with pytest.raises(DataError, match=r"unknown classes: cats \(did you mean cat\?\); known are cat, dog"):
        read_table(write(tmp_path / "t.csv", "path,label", "a,cats"), classes=("cat", "dog"))


def test_a_table_without_targets(tmp_path: Path):
    names = images(tmp_path)
    file = write(tmp_path / "data.csv", "path,split", *(f"{name},{'test' if name < '2' else ''}" for name in names))
    with pytest.raises(DataError, match="has no column of labels beside path, split; methods without labels"):
        load(file)
    splits = load(file, unlabelled=True)
    assert splits.classes == ()
    assert len(splits.test) == sum(name < "2" for name in names)


def test_a_row_twice_is_one(tmp_path: Path):
    table = read_table(write(tmp_path / "t.csv", "path,label", "a,cat", "b,dog", "a,cat"))
    assert table.paths == ["a", "b"]
    assert table.notes == ["1 rows of t.csv were there twice."]


def test_classes_from_outside(tmp_path: Path):
    file = write(tmp_path / "t.csv", "path,label", "a,dog", "b,", "c,eel")
    table = read_table(file, classes=("eel", "cat", "dog"))
    assert (table.labels.tolist(), table.classes) == ([2, -1, 0], ("eel", "cat", "dog"))
    several = write(tmp_path / "t.csv", "path,label", "a,dog;eel", "b,dog")
    assert read_table(several, classes=("cat", "dog", "eel")).labels.tolist() == [[0, 1, 1], [0, 1, 0]]


def test_files_that_are_not_there_are_all_named(tmp_path: Path):
    images(tmp_path)
    rows = [f"{number}.png,{number % 2}" for number in range(22)]
    with pytest.raises(UnreadableImages) as caught:
        load(write(tmp_path / "data.csv", "path,label", *rows))
    assert [Path(failure.path).name for failure in caught.value.failures] == ["20.png", "21.png"]
    assert len(load(tmp_path / "data.csv", skip_unreadable=True).skipped) == 2


def test_paths_elsewhere_and_without_extension(tmp_path: Path):
    images(tmp_path / "deep" / "pictures", suffix=".jpg")
    rows = [f"{number},{number % 2}" for number in range(20)]
    splits = load(write(tmp_path / "ids.csv", "id,image_id,label", *(f"7{row[:0]},{row}" for row in rows)))
    assert sorted(np.concatenate([number_of(part) for part in parts(splits)]).tolist()) == list(range(20))
    absolute = [f"{tmp_path}/deep/pictures/{number}.jpg,{number % 2}" for number in range(20)]
    assert len(load(write(tmp_path / "absolute.csv", "path,label", *absolute)).train) == 14
    elsewhere = write(tmp_path / "elsewhere.csv", "path,label", *(f"{n}.jpg,{n % 2}" for n in range(20)))
    root = tmp_path / "deep" / "pictures"
    assert len(build("data", f"table:{elsewhere},root={root}", request=SourceRequest()).train) == 14


@pytest.mark.parametrize("name", ["labels.csv", "labels.tsv", "metadata.csv"])
def test_a_table_in_a_flat_folder(tmp_path: Path, name: str):
    names = images(tmp_path)
    images(tmp_path / "more", 3)
    mark = "\t" if name.endswith("tsv") else ","
    rows = (f"{file}{mark}{number / 4}" for number, file in enumerate(names))
    write(tmp_path / name, f"file_name{mark}weight", *rows)
    splits = load(tmp_path)
    assert (splits.kind, splits.classes) == ("number", ("weight",))
    for part in parts(splits):
        assert (part.labels[:, 0] == number_of(part) / 4).all()
    assert any("Images that the table does not name were not used: 3" in note for note in splits.notes)


def test_a_table_beside_directories(tmp_path: Path):
    """Directories may be batches, and a table that names the images knows better."""
    names = [
        f"{folder}/{name}" for blue, folder in enumerate("ab") for name in images(tmp_path / folder, 10, blue=blue)
    ]
    write(tmp_path / "labels.csv", "path,label", *(f"{name},{number % 3}" for number, name in enumerate(names)))
    assert load(tmp_path).classes == ("0", "1", "2")
    assert build("data", f"folder:{tmp_path},layout=classes", request=SourceRequest()).classes == ("a", "b")
    write(tmp_path / "labels.csv", "path,label", *(f"other/{number}.png,1" for number in range(9)))
    splits = load(tmp_path)
    assert splits.classes == ("a", "b")
    assert any("labels.csv was not used: it names 0 images that are here, and 9 others." in n for n in splits.notes)


def test_a_table_that_cannot_be_used_where_nothing_else_says_the_labels(tmp_path: Path):
    images(tmp_path)
    write(tmp_path / "labels.csv", "0.png,cat", "1.png,dog")
    with pytest.raises(DataError, match="has no column of paths"):
        load(tmp_path)


def test_masks_beside_a_flat_folder(tmp_path: Path):
    names = images(tmp_path)
    (tmp_path / "masks").mkdir()
    for number in range(20):
        mask = np.zeros((8, 8), np.uint8)
        mask[number % 8] = 1
        Image.fromarray(mask).save(tmp_path / "masks" / f"{number}.gif")
    write(tmp_path / "labels.csv", "path,label", *(f"{name},{number % 2}" for number, name in enumerate(names)))
    splits = load(tmp_path)
    for part in parts(splits):
        assert (part.object_masks(slice(None))[:, :, 0].argmax(1) == number_of(part) % 8).all()


def test_one_set_with_the_classes_of_a_model(tmp_path: Path):
    names = images(tmp_path)
    file = write(
        tmp_path / "data.csv", "path,label", *(f"{name},{'ab'[number % 2]}" for number, name in enumerate(names))
    )
    found = load_folder_set(file, classes=("c", "b", "a"), size=8)
    assert (found.labels == 2 - number_of(found) % 2).all()
    assert load_folder_set(file, classes=("a", "b"), size=8, channels=1).channels == 1


CELLS = st.sampled_from(
    ["", "a", "b;c", "1", "0", "2.5", "nan", "inf", "1e999", "train", "x|", '"', "caf\u00e9", "?", "-1"]
)


@given(
    st.lists(st.sampled_from(["path", "label", "split", "group", "age", "sky"]), min_size=1, max_size=4, unique=True),
    st.lists(st.lists(CELLS, min_size=1, max_size=4), max_size=6),
    st.sampled_from(["auto", "classes", "labels", "number"]),
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_table_is_read_or_refused_in_words(tmp_path: Path, header: list[str], rows: list[list[str]], targets: Any):
    file = write(tmp_path / "t.csv", ",".join(header), *(",".join(row) for row in rows))
    try:
        table = read_table(file, targets=targets)
    except DataError:
        return
    assert len(table.paths) == len(table.labels) == len(table.parts)
    if table.labels.ndim == 1:
        assert set(table.labels.tolist()) <= {-1, *range(len(table.classes))}
    else:
        assert table.labels.shape[1] == len(table.classes)
        assert table.labels.dtype in (np.uint8, np.float32)


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_no_traceback(tmp_path: Path, data: bytes):
    (tmp_path / "t.csv").write_bytes(data)
    with pytest.raises(DataError, match=r"t\.csv"):
        read_table(tmp_path / "t.csv")

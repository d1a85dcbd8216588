from __future__ import annotations

import pytest
from PIL import Image

from repertoire.errors import UnreadableImages
from repertoire.report import Group, write_groups


def test_new_groups_come_first_and_nothing_is_fetched(tmp_path):
    files = []
    for number in range(3):
        files.append(tmp_path / f"{number}.png")
        Image.new("RGB", (30, 20), (80 * number, 0, 0)).save(files[-1])
    groups = [
        Group("fox", False, files, [f.name for f in files]),
        Group("new 1", True, files[:1], ["<b>&.png"]),
        Group("new 2", True, [], []),
    ]
    page = write_groups(tmp_path / "g.html", groups, source="a<b", facts={"Classes": "2"}).read_text()
    assert page.index("new 1") < page.index("fox")
    assert "new 2" not in page
    assert page.count('<img src="data:image/') == 4
    assert "<b>&.png" not in page
    assert "a<b" not in page
    assert "http" not in page.replace("http-equiv", "")


def test_rows_are_listed_by_name(tmp_path):
    groups = [Group("new 1", True, [], [f"<row {i}>" for i in range(14)]), Group("fox", False, [], ["a"])]
    page = write_groups(tmp_path / "g.html", groups, source="s", facts={}, noun="row").read_text()
    assert "14 rows, a new group; the 12 that fit it best." in page
    assert "1 row, a known class." in page
    assert page.count("<li>&lt;row ") == 12
    assert "<img" not in page


def test_an_image_that_is_none_is_named(tmp_path):
    (tmp_path / "x.png").write_text("no")
    with pytest.raises(UnreadableImages, match=r"x\.png"):
        write_groups(tmp_path / "g.html", [Group("a", True, [tmp_path / "x.png"], ["x"])], source="s", facts={})

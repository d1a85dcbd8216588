"""The pages of a gallery: how many, with what, and whether a browser shows them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from repertoire.report import Explained, Gallery

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


def write(folder: Path, count: int, per_page: int = 2) -> Path:
    (folder / "p #1").mkdir(parents=True)
    gallery = Gallery(
        folder, title="A <title>", subtitle="About it.", explainers=["one", "two"], notes=["Careful."], pixelated=True,
        per_page=per_page,
    )  # fmt: skip
    for i in range(count):
        for name in ("image", "one", "two"):
            Image.fromarray(np.full((8, 8, 3), 40 * (i % 5), np.uint8)).save(folder / "p #1" / f"{i} {name}%.png")
        explained = [Explained("cat & dog", 0.75, [f"p #1/{i} one%.png", f"p #1/{i} two%.png"])]
        gallery.add(f"<i>{i}</i>.png", f"p #1/{i} image%.png", [("cat & dog", 0.75), ("bird", 0.25)], explained, "bird")
    return gallery.close()


def test_pages_hold_so_many_images_and_name_each_other(tmp_path: Path) -> None:
    first = write(tmp_path, 5)
    assert first == tmp_path / "index.html"
    assert sorted(path.name for path in tmp_path.glob("*.html")) == ["index.html", "page-2.html", "page-3.html"]
    pages = [(tmp_path / name).read_text(encoding="utf-8") for name in ("index.html", "page-2.html", "page-3.html")]
    assert [page.count('<li class="card"') for page in pages] == [2, 2, 1]
    assert ['rel="prev"' in page for page in pages] == [False, True, True]
    assert ['rel="next"' in page for page in pages] == [True, True, False]
    assert 'href="page-3.html" rel="next"' in pages[1]
    assert 'href="index.html" rel="prev"' in pages[1]
    assert "images 5 to 5" in pages[2]


def test_a_page_is_full_only_when_another_image_comes(tmp_path: Path) -> None:
    write(tmp_path, 4)
    assert len(list(tmp_path.glob("*.html"))) == 2
    assert "Next page" not in (tmp_path / "page-2.html").read_text(encoding="utf-8")


def test_nothing_to_show(tmp_path: Path) -> None:
    assert "There are no images" in write(tmp_path, 0).read_text(encoding="utf-8")


def test_names_are_text_and_addresses_are_quoted(tmp_path: Path) -> None:
    page = write(tmp_path, 1).read_text(encoding="utf-8")
    assert "&lt;i&gt;0&lt;/i&gt;.png" in page
    assert "A &lt;title&gt;" in page
    assert 'src="p%20%231/0%20one%25.png"' in page
    assert "true class <b>bird</b>" in page


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_a_browser_runs_the_sliders_and_loads_the_pictures_from_the_disk(tmp_path: Path) -> None:
    assert CHROMIUM is not None
    page = write(tmp_path / "gallery", 1)
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
            "--disable-background-networking", "--no-first-run", "--enable-logging=stderr", "--dump-dom", page.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr, done.stderr
    # The sliders are hidden until the script runs.
    assert 'class="slide" hidden' not in done.stdout
    assert "--cut: 100" in done.stdout.replace("--cut:100", "--cut: 100")

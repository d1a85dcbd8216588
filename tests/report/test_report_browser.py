"""The page in a real browser: it runs without complaint and fits a phone."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from report_runs import train

from repertoire.report import write_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")

PROBE = """
<script>
addEventListener("load", () => {
  const map = document.querySelector("svg.map"), point = map.querySelector(".point use");
  const box = point.getBoundingClientRect();
  const at = {clientX: box.x + box.width / 2, clientY: box.y + box.height / 2, bubbles: true};
  map.dispatchEvent(new PointerEvent("pointermove", at));
  const tooltip = document.querySelector(".tooltip");
  const hint = tooltip.hidden ? null : tooltip.textContent;
  const inside = tooltip.getBoundingClientRect().right <= innerWidth;
  document.dispatchEvent(new KeyboardEvent("keydown", {key: "Escape"}));
  document.querySelector(".legend button").click();
  for (const closed of document.querySelectorAll("details")) closed.open = true;
  parent.document.body.dataset.probe = JSON.stringify({
    hint, inside, dismissed: tooltip.hidden, viewport: innerWidth, width: document.documentElement.scrollWidth,
    pressed: document.querySelectorAll('.legend [aria-pressed="true"]').length,
    faded: map.querySelectorAll("g.faded").length, dark: matchMedia("(prefers-color-scheme: dark)").matches,
    page: getComputedStyle(document.body).backgroundColor, ink: getComputedStyle(document.body).color,
    smallest: Math.min(...[...document.images].map((image) => image.getBoundingClientRect().width)),
    loaded: [...document.images].every((image) => image.naturalWidth > 0),
  });
});
</script>
"""


def browse(page: Path, profile: Path, *options: str) -> subprocess.CompletedProcess[str]:
    assert CHROMIUM is not None
    plain = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={profile}")
    quiet = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run")
    return subprocess.run(
        [CHROMIUM, *plain, *quiet, "--enable-logging=stderr", *options, "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )


def probe(page: Path, tmp_path: Path, width: int, *options: str) -> dict[str, object]:
    """What the page says about itself in a frame of that width (a window cannot be as narrow as a phone).

    The policy that forbids foreign scripts is taken out for the question.
    """
    source = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text(encoding="utf-8"))
    asking = tmp_path / "asking.html"
    source = html.escape(source.replace("</body>", PROBE + "</body>"))
    frame = f'<!doctype html><meta charset="utf-8"><iframe width="{width}" height="844" srcdoc="{source}"></iframe>'
    asking.write_text(frame, encoding="utf-8")
    found = re.search(r'data-probe="([^"]*)"', browse(asking, tmp_path / "profile", *options).stdout)
    assert found is not None
    return json.loads(html.unescape(found[1]))


def test_nothing_is_complained_about_and_no_name_is_run(page: Path, tmp_path: Path) -> None:
    done = browse(page, tmp_path / "profile")
    assert "CONSOLE" not in done.stderr, done.stderr
    assert "<title>" in done.stdout
    # The script runs under the page's own policy: it takes the points' titles over.
    assert not re.search(r'class="point[^>]*><title>', done.stdout)
    assert re.search(r'class="point[^>]*><title>', page.read_text(encoding="utf-8"))


def test_it_fits_a_phone_and_its_map_answers(page: Path, tmp_path: Path) -> None:
    seen = probe(page, tmp_path, 390)
    assert seen["viewport"] == seen["width"] == 390
    assert seen["loaded"] is True
    assert isinstance(seen["smallest"], float | int)
    assert seen["smallest"] >= 64
    assert seen["hint"]
    assert seen["inside"] is True
    assert seen["dismissed"] is True
    assert (seen["pressed"], seen["faded"]) == (1, 2)
    assert seen["dark"] is False


def test_dark_mode_turns_lightness_round(page: Path, tmp_path: Path) -> None:
    seen = probe(page, tmp_path, 1200, "--blink-settings=preferredColorScheme=0")
    if not seen["dark"]:
        pytest.skip("this browser cannot be told to prefer dark pages")
    lightness = {key: sum(map(int, re.findall(r"\d+", str(seen[key]))[:3])) for key in ("page", "ink")}
    assert lightness["page"] < 150 < 600 < lightness["ink"]


def test_many_long_names_fit_a_phone(tmp_path: Path) -> None:
    run = train(tmp_path, [f"a-class-name-without-a-single-space-in-it-number-{k:02}" for k in range(24)], 8)
    seen = probe(write_report(run), tmp_path, 390)
    assert seen["viewport"] == seen["width"] == 390

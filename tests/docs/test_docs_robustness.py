"""The page on robustness names tests that there are."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_each_report_is_held_by_a_test_that_exists():
    page = (ROOT / "docs" / "robustness.md").read_text(encoding="utf-8")
    named = re.findall(r"\| `(\w+)::(\w+)` \|$", page, re.MULTILINE)
    assert len(named) > 60
    files = {path: path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")}
    checks = ROOT / "src" / "repertoire" / "testing"
    missing = []
    for stem, name in named:
        texts = [text for path, text in files.items() if path.stem.endswith(f"_{stem}")]
        check = checks / f"{stem}.py"
        held = any(f"def test_{name}(" in text for text in texts)
        if not held and not (check.exists() and f"def check_{name}(" in check.read_text(encoding="utf-8")):
            missing.append(f"{stem}::{name}")
    assert not missing

"""The components of the guide keep the contracts of their kinds, as they are written there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from pages import ROOT, blocks


def test_the_components_of_the_guide_pass_all_checks(tmp_path: Path):
    """In a process of its own, which registers them; with the test that the guide shows."""
    written = [block for block in blocks(ROOT / "docs" / "guide" / "extend.md", "python") if block.file]
    assert [block.file for block in written] == ["my_losses.py", "my_parts.py", "test_mine.py"]
    for block in written:
        (tmp_path / block.file).write_text(block.code, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout

"""The components of the guide keep the contracts of their kinds, as they are written there."""

from __future__ import annotations

import re
from pathlib import Path

from pages import ROOT, blocks

from repertoire import registry, testing

PAGE = ROOT / "docs" / "guide" / "extend.md"


def test_the_guide_says_how_a_component_of_each_kind_is_checked():
    """A row for each kind, with what is supplied and the check; and no check is left out."""
    section = PAGE.read_text(encoding="utf-8").partition("## The kinds")[2].partition("\n## ")[0]
    rows = {cells[1].strip(" `"): cells for line in section.splitlines() if len(cells := line.split("|")) > 4}
    assert set(registry.KINDS) <= set(rows)
    named = set()
    for kind in registry.KINDS.values():
        assert set(re.findall(r"`(\w+)`", rows[kind.name][3])) >= set(kind.supplied), kind.name
        (check,) = re.findall(r"`(check_\w+)`", rows[kind.name][4])
        named.add(check)
    assert named == {name for name in testing.__all__ if name.startswith("check_")}


def test_the_components_of_the_guide_pass_all_checks(python, tmp_path: Path):
    """In a process of its own, which registers them; with the test that the guide shows."""
    written = [block for block in blocks(PAGE, "python") if block.file]
    assert [block.file for block in written] == ["my_losses.py", "my_parts.py", "my_doors.py", "test_mine.py"]
    for block in written:
        (tmp_path / block.file).write_text(block.code, encoding="utf-8")
    done = python("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py", folder=tmp_path)
    said, _ = done.communicate(timeout=240)
    assert done.returncode == 0, said[-3000:]
    assert " passed" in said

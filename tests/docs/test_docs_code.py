"""Python on the pages is valid and runs, page by page, as a reader would type it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from pages import PAGES, ROOT, blocks, name

WITH_PYTHON = [page for page in PAGES if blocks(page, "python") and page.name != "CONTRIBUTING.md"]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=name)
def test_python_is_valid(page):
    for block in blocks(page, "python"):
        compile(block.code, f"{name(page)}: {block.code.splitlines()[0]}", "exec")


@pytest.mark.parametrize("page", WITH_PYTHON, ids=name)
def test_python_runs(page, tmp_path):
    """All blocks of a page in one process: a later one may use what an earlier one made."""
    session = []
    for block in blocks(page, "python"):
        if block.file:
            (tmp_path / block.file).write_text(block.code, encoding="utf-8")
        else:
            session.append(block.code)
    script = tmp_path / "page.py"
    # Training may start processes, which import the script anew.
    body = "\n".join(session)
    script.write_text(f"if __name__ == '__main__':\n    exec({body!r})\n", encoding="utf-8")
    run(script, tmp_path)


def test_contributing_example_is_a_whole_method(tmp_path):
    """Component, claim and test of CONTRIBUTING.md, as files; the card's line names what the component exports."""
    files = {block.file: block.code for block in blocks(ROOT / "CONTRIBUTING.md", "python")}
    for file, code in files.items():
        (tmp_path / file).write_text(code, encoding="utf-8")
    (card,) = blocks(ROOT / "CONTRIBUTING.md", "toml")
    assert card.code.strip() == 'components = ["repertoire.losses.Encouraging"]'
    check = tmp_path / "check.py"
    check.write_text(
        "import doctest\n"
        "import encouraging, encouraging_claim\n"
        "from repertoire import claims, papers, registry\n"
        "assert doctest.testmod(encouraging).failed == 0\n"
        "entry = registry.get('losses', 'encouraging')\n"
        "assert entry.paper == papers.get(entry.paper).slug == encouraging_claim.encouraging.slug\n"
        "assert papers.get(entry.paper).family == 'loss-classification'\n"
        "measured = encouraging_claim.encouraging(claims.Budget('smoke'), 0)\n"
        "assert 0 <= measured.method <= 1\n"
    )
    run(check, tmp_path)
    run("-m", tmp_path, "pytest", "-q", "-p", "no:cacheprovider", "test_encouraging.py")


def run(script, folder, *arguments):
    paths = [str(ROOT / "src"), str(folder)]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "REPERTOIRE_CACHE": str(folder / "cache"),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, str(script), *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr

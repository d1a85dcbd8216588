"""Python on the pages runs, page by page, as a reader would type it."""

from __future__ import annotations

import json

import pytest
from pages import PAGES, ROOT, blocks, name

from repertoire import papers
from warm import Started

WITH_PYTHON = [page for page in PAGES if blocks(page, "python")]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    result = folder / "result.json"
    script = str(ROOT / "tests" / "docs" / "session.py")
    done = Started(script, str(folder), str(result), environment={"REPERTOIRE_CACHE": str(folder / "cache")})
    said, _ = done.communicate(timeout=600)
    status = done.returncode
    done.end()
    assert status == 0, said
    return json.loads(result.read_text())


def test_most_pages_of_the_guide_have_python():
    assert len(WITH_PYTHON) > 8


@pytest.mark.parametrize("page", WITH_PYTHON, ids=name)
def test_python_runs(page, outcome):
    assert not outcome[name(page)], outcome[name(page)]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_of_the_repository_are_shown_as_they_are(page):
    for block in blocks(page, "python"):
        if block.of_the_repository:
            assert block.code in (ROOT / block.file).read_text(encoding="utf-8"), (
                f"{name(page)} shows an old {block.file}"
            )


def test_contributing_shows_a_component_its_claim_and_its_test():
    files = [block.file for block in blocks(ROOT / "CONTRIBUTING.md", "python")]
    assert [file.partition("/")[0] for file in files] == ["src", "src", "tests"]


def test_contributing_shows_the_line_of_the_card():
    (card,) = blocks(ROOT / "CONTRIBUTING.md", "toml")
    assert card.code.strip() == f"components = {list(papers.get('encouraging-loss').components)}".replace("'", '"')

"""What the pages promise to hold: every component, every benchmark, links that lead somewhere."""

from __future__ import annotations

import ast
import re
import tomllib

import pytest
import yaml
from pages import PAGES, ROOT, name

from repertoire import registry

DOCS = ROOT / "docs"


@pytest.mark.parametrize("room", list(registry.KINDS))
def test_every_registered_component_appears(room):
    """The page of a room has the generated table and the reference, and the reference has what is registered."""
    pages = [page for page in (DOCS / "components").glob("*.md") if f"<!-- components: {room} -->" in page.read_text()]
    assert len(pages) == 1, f"one page of docs/components must have the line <!-- components: {room} -->"
    everything = "".join(page.read_text() for page in (DOCS / "components").glob("*.md"))
    public = {}
    for module in registry.KINDS[room].modules:
        assert f"<!-- api: {module} -->" in everything
        public[module] = _public(ROOT / "src" / (module.replace(".", "/") + "/__init__.py"))
    for entry in registry.entries(room):
        if entry.factory.__module__.startswith("repertoire."):
            module, _, name = entry.dotted.rpartition(".")
            assert name in public[module], f"{entry.dotted} is not exported"


def _public(path):
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return ast.literal_eval(node.value)
    raise AssertionError(f"{path} has no __all__")


def test_every_benchmark_has_its_place():
    text = (DOCS / "performance.md").read_text()
    shown = re.findall(r"<!-- numbers: ([\w-]+) -->", text)
    scripts = sorted(path.stem for path in (ROOT / "benchmarks").glob("[a-z]*.py"))
    assert sorted(shown) == scripts
    assert not re.search(r"\d+(\.\d+)?\s*(%|times|ms\b|images/s)", text), "numbers come from benchmarks only"


_FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_to_files_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", _FENCED.sub("", page.read_text(encoding="utf-8"))):
        path = target.partition("#")[0]
        if not path or "://" in target or path in _GENERATED or path.endswith("feed.xml"):
            continue
        base = DOCS if page.name == "CONTRIBUTING.md" else page.parent
        found = base / path
        if page.is_relative_to(DOCS) and found.resolve().is_relative_to(DOCS):
            relative = str(found.resolve().relative_to(DOCS))
            if relative in _GENERATED:
                continue
        assert found.exists(), f"{name(page)} links to {target}"


_GENERATED = {"papers/index.md", "families/index.md", "evidence.md", "contributing.md", "changelog.md"}


def test_navigation_names_every_page():
    class Loader(yaml.SafeLoader):
        pass

    config = yaml.load((ROOT / "mkdocs.yml").read_text(), Loader)
    listed = set(_leaves(config["nav"]))
    written = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md") if "numbers" not in page.parts}
    assert listed == written | _GENERATED
    assert "site_url" not in config
    assert config["use_directory_urls"] is False
    assert config["theme"]["font"] is False


def _leaves(node):
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict):
        for value in node.values():
            yield from _leaves(value)
    else:
        for value in node:
            yield from _leaves(value)


def test_project_files_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == project["version"]
    assert citation["license"] == project["license"] == "Apache-2.0"
    assert (ROOT / "LICENSE").read_text().strip().startswith("Apache License")
    assert f"## {project['version']}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_numbers_of_the_readme_were_measured():
    """Each of them stands in the table that the benchmark printed, in the row of as many images a class."""
    text = (ROOT / "README.md").read_text()
    marked = re.search(r"<!-- measured: (\w+) -->(.*?)<!-- /measured -->", text, re.DOTALL)
    table = (DOCS / "numbers" / f"{marked[1]}.md").read_text()
    rows = re.findall(r"^\| (\d+) \| ([\d.]+) % \|$", marked[2], re.MULTILINE)
    assert [count for count, _ in rows] == ["5", "20", "100"]
    for count, share in rows:
        assert f"| 160 | float32 | {count} | {float(share) / 100:.3f} |" in table

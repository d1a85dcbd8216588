"""The benchmark of explainers runs, and puts its parts together."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "explainers.py"


@pytest.fixture(scope="module")
def benchmark_of_explainers():
    spec = importlib.util.spec_from_file_location("benchmark_of_explainers", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_each_family_has_a_bound_and_a_row_for_each_way(benchmark_of_explainers):
    it = benchmark_of_explainers.network("resnet", 2, 64, "cpu")
    for title, ways_of, most in benchmark_of_explainers.FAMILIES.values():
        few = it._replace(x=it.x[:most], targets=it.targets[:most])
        ways = ways_of(few)
        assert next(iter(ways)).startswith("bare")
        assert any(way.startswith("repertoire") for way in ways)
        # One way a family is enough to see that the table can be made.
        first = dict(list(ways.items())[:1])
        text = benchmark_of_explainers.table(few, title, first, 1, "cpu")
        assert text.startswith(f"{title}, ")
        assert text.count("\n| bare") == 1
        assert "| 1.00 |" in text


def test_parts_are_put_together(benchmark_of_explainers, tmp_path, monkeypatch, capsys):
    parts = []
    for i in range(2):
        parts.append(tmp_path / f"{i}.md")
        parts[i].write_text(f"torch of a machine\n\ntable {i}:\n\n| a |\n|---|\n| {i} |\n")
    monkeypatch.setattr(sys, "argv", ["explainers.py", "--join", *map(str, parts)])
    benchmark_of_explainers.main()
    expected = "torch of a machine\n\ntable 0:\n\n| a |\n|---|\n| 0 |\n\ntable 1:\n\n| a |\n|---|\n| 1 |\n"
    assert capsys.readouterr().out == expected

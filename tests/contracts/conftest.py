"""Suites over all components of a kind can be cut down to those that a change reaches (`tools/closure.py`)."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--components", default="", help="kind/name of the components to check, with commas between them")
    parser.addoption("--whole", default="", help="suites that are run whole all the same")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = {each for each in config.getoption("--components", default="").split(",") if each}
    whole = {each for each in config.getoption("--whole", default="").split(",") if each}
    if not wanted:
        return
    names = {each.partition("/")[2] for each in wanted}

    def kept(item: pytest.Item) -> bool:
        file, _, test = item.nodeid.partition("::")
        if not file.startswith("tests/contracts/") or file in whole or "[" not in test:
            return True
        label = test.partition("[")[2]
        return any(label.startswith((f"{one}-", f"{one}]")) for one in wanted | names)

    dropped = [item for item in items if not kept(item)]
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if kept(item)]

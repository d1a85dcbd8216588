"""Runs to report on, and copies of them that a test may damage."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from report_runs import HOSTILE, train

from repertoire.report import write_report
from repertoire.train import Run


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of three classes with names that are markup, long, or of more than one line."""
    return train(tmp_path_factory.mktemp("hostile"), HOSTILE, 40, epochs=2)


@pytest.fixture(scope="session")
def page(hostile: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of that run."""
    return write_report(hostile, tmp_path_factory.mktemp("page") / "report.html")


@pytest.fixture
def copy(hostile: Run, tmp_path: Path) -> Path:
    """A directory with a copy of that run, to be damaged; its data lies beside it."""
    shutil.copytree(hostile.path, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def edit() -> Callable[..., None]:
    """Changes fields of a JSON file."""

    def change(path: Path, **fields: Any) -> None:
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))

    return change

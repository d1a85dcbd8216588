"""What is said to who uses Python names no option of the command line: `out`, and not `--out`.

Commands are for the command line (`cli`), and for pages and tables that show commands (`report`, `registry`, `papers`).
Everything else says options with `repertoire.errors.option`, which knows who reads.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import repertoire
from repertoire import compare, data, errors, files, plan
from repertoire.errors import RepertoireError, option, options, other_data, resuming, speak_command_line

PACKAGE = Path(repertoire.__file__).parent
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]+")

SHOWS_COMMANDS = ("_aliases.py", "cli", "errors.py", "report", "registry.py", "papers", "claims/__main__.py")
"""Where commands are what is shown, and what says options to either."""

OF_OTHERS = re.compile(r"pip install [^\n]*|torchrun --nproc-per-node \d*")
"""Options of other programs."""

PLURAL = re.compile(r"\w\((?:s|es|ies)\)")
"""A number that was not looked at: `1 image(s)`."""


def texts(path: Path) -> list[tuple[int, str]]:
    """The strings of a module that are no docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    silent = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    # A string by itself is the docstring of the constant before it.
    silent |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return [
        (node.lineno, node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in silent
    ]


def flags(path: Path) -> list[str]:
    if not FLAG.search(path.read_text(encoding="utf-8")):
        return []
    return [
        f"{path.relative_to(PACKAGE)}:{line}: {FLAG.search(OF_OTHERS.sub('', text))[0]}"
        for line, text in texts(path)
        if FLAG.search(OF_OTHERS.sub("", text))
    ]


def modules() -> list[Path]:
    return [
        path
        for path in sorted(PACKAGE.rglob("*.py"))
        if not path.relative_to(PACKAGE).as_posix().startswith(SHOWS_COMMANDS)
    ]


def test_no_message_names_a_flag():
    found = [where for path in modules() for where in flags(path)]
    assert not found


def test_no_message_leaves_the_plural_open():
    """Of all that is said, also by commands and pages: `errors.plural` says a number with its noun."""
    found = [
        f"{path.relative_to(PACKAGE)}:{line}: {text[:60]!r}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if PLURAL.search(path.read_text(encoding="utf-8"))
        for line, text in texts(path)
        if PLURAL.search(text)
    ]
    assert not found


def test_plurals_that_are_left_open_would_be_found(tmp_path: Path):
    module = tmp_path / "m.py"
    module.write_text('"""Of the term exp(s)."""\ndef f(n):\n    raise ValueError(f"{n} image(s) in {n} class(es)")\n')
    assert [bool(PLURAL.search(text)) for _, text in texts(module)] == [True, True]


def test_the_search_would_find_one(tmp_path: Path):
    path = PACKAGE / "cli" / "train.py"
    assert any("--overwrite" in where for where in flags(path))


@pytest.fixture
def features(tmp_path: Path) -> Path:
    path = tmp_path / "features.npz"
    np.savez(path, features=np.eye(12, dtype=np.float32), labels=np.zeros(12, np.int64))
    return path


REFUSED: dict[str, Callable[[Path], object]] = {
    "one class": lambda path: data.load(path),
    "unreadable": lambda path: data.load(_bad_images(path.parent)),
    "grid": lambda path: compare.compare(path, vary={"lr": "0.1"}),
    "seed": lambda path: compare.compare(path, vary={"seed": "1,2"}),
    "search": lambda path: compare.compare("digits", vary={"loss": "cross-entropy,focal"}, search={"lr": "3..1"}),
    "plan": lambda path: plan.plan("digits", memory="1KB"),
    "occupied": lambda path: repertoire.fit("digits", out=_foreign(path.parent)),
    "hub": lambda path: data.load("hf:nobody/nothing"),
    "method": lambda path: repertoire.fit("digits", method="dino", loss="focal", epochs=1),
    "folds": lambda path: repertoire.train.fit_folds(path, 400),
    "exits": lambda path: repertoire.train.Folds(path.parent),
}


def _bad_images(root: Path) -> Path:
    for name in ("a", "b"):
        (root / "images" / name).mkdir(parents=True)
        (root / "images" / name / "x.png").write_bytes(b"no image")
    return root / "images"


def _foreign(root: Path) -> Path:
    (root / "mine").mkdir()
    (root / "mine" / "notes.txt").write_text("mine")
    return root / "mine"


@pytest.mark.parametrize("what", REFUSED)
def test_what_python_is_told(what: str, features: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(features.parent)
    with pytest.raises(RepertoireError) as caught:
        REFUSED[what](features)
    assert not FLAG.search(str(caught.value)), caught.value


def test_options_as_each_door_writes_them():
    assert option("skip_unreadable", True) == "skip_unreadable=True"
    assert option("vary", {"loss": "a,b", "lr": "1,2"}) == "vary={'loss': 'a,b', 'lr': '1,2'}"
    assert resuming("runs/a") == "repertoire.train.resume('runs/a')"
    assert other_data().endswith("or set run.splits")
    speak_command_line()
    try:
        assert option("skip_unreadable", True) == "--skip-unreadable"
        assert option("gather", False) == "--no-gather"
        assert option("vary", {"loss": "a,b", "lr": "1,2"}) == "--vary loss=a,b --vary lr=1,2"
        assert options(rule="sam", accumulate=2) == "--rule sam --accumulate 2"
        assert resuming("runs/my run") == "repertoire train --resume 'runs/my run'"
        assert other_data() == "name the data to look at after it"
    finally:
        speak_command_line(False)


def test_a_lock_is_taken_through_no_link(tmp_path: Path):
    """Whoever may write to a directory could have a file of somebody else's emptied."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "comparison").mkdir()
    (tmp_path / "comparison" / ".lock").symlink_to(victim)
    with pytest.raises(errors.RunError, match="symbolic link"), files.lock_directory(tmp_path / "comparison"):
        pass
    assert victim.read_text() == "precious"

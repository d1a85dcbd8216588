"""Which tests a change reaches, in a made-up repository and in this one."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
specification = importlib.util.spec_from_file_location("closure", ROOT / "tools" / "closure.py")
closure = importlib.util.module_from_spec(specification)
specification.loader.exec_module(closure)

FILES = {
    "src/toy/__init__.py": "",
    "src/toy/sums/__init__.py": "from toy.sums._double import double\nfrom toy.sums._triple import triple\n",
    "src/toy/sums/_double.py": "def double(x): ...\n",
    "src/toy/sums/_triple.py": '@register("sums", "triple")\ndef triple(x): ...\n',
    "src/toy/sums/table.json": "{}",
    "src/toy/uses/__init__.py": "from toy.uses._of_double import four as four\n",
    "src/toy/uses/_of_double.py": "from toy.sums import double\n\ndef four(): return double(double(1))\n",
    "tests/conftest.py": "",
    "tests/test_double.py": "from toy import sums\n\ndef test(): sums.double(1)\n",
    "tests/test_four.py": "from toy.uses import four\n",
    "tests/test_named.py": "SPEC = '--sum triple:by=2'\n",
    "tests/test_whole.py": "from toy import sums\n\ndef test(): vars(sums)\n",
    "tests/contracts/test_contract_sums.py": "KIND = 'sums'\n",
    "tests/contracts/test_contract_other.py": "KIND = 'other'\n",
}


@pytest.fixture
def toy(tmp_path: Path) -> closure.Closure:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return closure.Closure(tmp_path, "toy")


def reached(toy: closure.Closure, *names: str) -> set[str]:
    return {argument.removeprefix("tests/") for argument in toy.arguments([toy.root / name for name in names])}


def test_a_name_leads_past_the_package_to_the_module_that_defines_it(toy: closure.Closure):
    assert reached(toy, "src/toy/sums/_double.py") == {"test_double.py", "test_four.py", "test_whole.py"}


def test_a_registered_name_leads_to_who_types_it_and_to_the_suites_of_its_kind(toy: closure.Closure):
    found = reached(toy, "src/toy/sums/_triple.py")
    assert found == {
        "test_named.py",
        "test_whole.py",
        "contracts/test_contract_sums.py",
        "--components=sums/triple",
        "--whole=",
    }


def test_what_is_no_python_is_read_by_its_neighbours(toy: closure.Closure):
    assert {"test_double.py", "test_named.py"} <= reached(toy, "src/toy/sums/table.json")


def test_what_all_tests_share_reaches_all_and_a_test_reaches_itself(toy: closure.Closure):
    assert toy.arguments([toy.root / "tests/conftest.py"]) == ["tests"]
    assert reached(toy, "tests/test_four.py") == {"test_four.py"}
    assert toy.arguments([toy.root / "src/toy/uses/__init__.py"]) == []


def test_a_package_that_gained_a_name_has_not_changed(toy: closure.Closure):
    git = ["git", "-C", str(toy.root), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *command], check=True)
    package = toy.root / "src/toy/sums/__init__.py"
    package.write_text(package.read_text() + "from toy.sums._more import more\n")
    (package.parent / "_more.py").write_text("def more(): ...\n")
    assert closure.changed_since(toy.root, "HEAD") == [package.parent / "_more.py"]
    package.write_text(package.read_text() + "print('loaded')\n")
    assert package in closure.changed_since(toy.root, "HEAD")


def test_a_loss_of_this_repository_reaches_its_own_tests_and_not_the_explainers():
    found = closure.Closure(ROOT).arguments([ROOT / "src/repertoire/losses/views/_nt_xent.py"])
    assert "tests/losses/views/test_losses_nt_xent.py" in found
    assert "tests/contracts/test_contract_losses.py" in found
    (components,) = (argument for argument in found if argument.startswith("--components="))
    assert "losses/nt-xent" in components
    suites = [argument for argument in found if argument.startswith("tests/")]
    assert len(suites) < 60
    assert not [
        suite for suite in suites if suite.startswith(("tests/explain", "tests/diagnostics", "tests/backbones"))
    ]

"""Evidence is bound to code: what changes a footprint, what does not, and what is said about it."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from repertoire import claims, papers
from repertoire.claims import _again, _arms, _harness
from repertoire.claims._evidence import components_of
from repertoire.claims._footprint import Footprint, Library, compare_footprints, library

FILES = {
    "losses/__init__.py": "from repertoire.losses._one import One as One\n",
    "losses/_one.py": '''
"""A loss."""
from repertoire.losses._help import help_out
from repertoire.ops import add

LIMIT = 3

class One:
    """A loss."""
    def forward(self, x):
        """Forward."""
        return help_out(x, LIMIT) + add(x)
''',
    "losses/_help.py": "def help_out(x, y):\n    return x * y\n\n\ndef other():\n    return 1\n",
    "ops/__init__.py": "from repertoire.ops._add import add as add\n",
    "ops/_add.py": "def add(x):\n    return x + 1\n",
    "claims/__init__.py": "",
    "claims/_training.py": "def train(loss):\n    return loss\n",
    "claims/_harness.py": "def run():\n    return 1\n",
    "claims/beds/_named.py": """
def bed(name, source):
    return name, source

NEAR = bed("near", "near:count=3")
FAR_OFF = bed("far-off", "near:count=9")
NAMED = {found[0]: found for found in tuple(globals().values()) if isinstance(found, tuple)}

def get(name):
    return NAMED[name]
""",
    "claims/beds/scene.py": "COUNT = 3\n\n\ndef scene(seed):\n    return COUNT + seed\n",
    "claims/family/paper.py": '''
from repertoire import losses
from repertoire.claims._harness import run
from repertoire.claims._training import train
from repertoire.claims.beds import _named
from repertoire.claims import claim
from repertoire.claims.beds.scene import scene

@claim("paper", threshold=0.1, guard="chance")
def paper(budget, seed):
    """Says something."""
    from repertoire.heads import Late
    run()
    return train(losses.One()), scene(seed), Late, _named.get("far-off")
''',
    "heads/__init__.py": "from repertoire.heads._late import Late as Late\n",
    "heads/_late.py": "class Late:\n    width = 4\n",
    "methods/__init__.py": "from repertoire.methods._built import Built as Built\n",
    "methods/_built.py": "class Built:\n    rate = 0.1\n",
}


def footprint(folder: Path, **changes: str) -> Footprint:
    root = folder / "repertoire"
    for name, text in {**FILES, **{k.replace("__", "/").replace("_py", ".py"): v for k, v in changes.items()}}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return read(root)


def read(root: Path, module: str = "repertoire.claims.family.paper") -> Footprint:
    return Library(root).footprint(module, "paper", ["repertoire.methods.Built"])


def replaced(folder: Path, file: str, old: str, new: str) -> Footprint:
    footprint(folder)
    path = folder / "repertoire" / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    return read(folder / "repertoire")


def test_it_covers_what_the_claim_calls_and_what_that_is_made_of(tmp_path: Path):
    found = footprint(tmp_path)
    assert set(found.claim) == {"paper", "train", "scene", "COUNT", "get", "NAMED", "bed", "FAR_OFF"}
    assert set(found.components) == {"One", "help_out", "LIMIT", "Late", "Built"}


@pytest.mark.parametrize(
    ("file", "old", "new", "where"),
    [
        ("claims/family/paper.py", "scene(seed)", "scene(0)", "claim"),
        ("claims/family/paper.py", "threshold=0.1", "threshold=0.2", "claim"),
        ("claims/_training.py", "return loss", "return None", "claim"),
        ("claims/beds/scene.py", "COUNT = 3", "COUNT = 4", "claim"),
        ("claims/beds/_named.py", "near:count=9", "near:count=8", "claim"),
        ("claims/beds/_named.py", "NAMED[name]", "NAMED.get(name)", "claim"),
        ("losses/_one.py", "LIMIT = 3", "LIMIT = 4", "components"),
        ("losses/_help.py", "x * y", "x / y", "components"),
        ("heads/_late.py", "4", "8", "components"),
        ("methods/_built.py", "0.1", "0.2", "components"),
        ("ops/_add.py", "x + 1", "x + 2", "trunk"),
    ],
)
def test_what_changes_it(tmp_path: Path, file: str, old: str, new: str, where: str):
    before, after = footprint(tmp_path / "a"), replaced(tmp_path / "b", file, old, new)
    assert {name for name in ("claim", "components", "trunk") if getattr(before, name) != getattr(after, name)} == {
        where
    }


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("losses/_one.py", "A loss.", "Another loss."),
        ("losses/_one.py", '"""Forward."""', "# forward"),
        ("losses/_help.py", "return 1", "return 2"),
        ("claims/_harness.py", "return 1", "return 2"),
        ("claims/beds/_named.py", "near:count=3", "near:count=4"),
        ("claims/beds/_named.py", "NAMED = {", 'BESIDE = bed("beside", "far-off")\nNAMED = {'),
        ("claims/family/paper.py", "Says something.", "Says nothing."),
        ("claims/family/paper.py", 'guard="chance"', 'guard="raw inputs"'),
        ("claims/family/paper.py", ', guard="chance"', ""),
    ],
)
def test_what_does_not(tmp_path: Path, file: str, old: str, new: str):
    assert footprint(tmp_path / "a") == replaced(tmp_path / "b", file, old, new)


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ('guard="chance"', 'guard="raw inputs"', True),
        (', guard="of all"', "", True),
        ("threshold=0.1", "threshold=0.2", False),
        ('metric="a"', 'metric="b"', False),
    ],
)
def test_words_of_a_partial_claim_count_as_little(tmp_path: Path, old: str, new: str, same: bool):
    text = FILES["claims/family/paper.py"].replace(
        '@claim("paper", threshold=0.1, guard="chance")',
        '_claim = functools.partial(claim, "paper", metric="a", guard="of all")\n\n'
        '@_claim(threshold=0.1, guard="chance")',
    )
    before = footprint(tmp_path / "a", claims__family__paper_py=text)
    assert old in text
    after = footprint(tmp_path / "b", claims__family__paper_py=text.replace(old, new))
    assert (before == after) == same


def test_a_new_bed_leaves_claims_on_other_beds_as_they_are(tmp_path: Path):
    """In the package itself: a bed more, and another one that changes, next to one that a claim is measured on."""
    import shutil

    root = tmp_path / "repertoire"
    shutil.copytree(library().root, root, ignore=shutil.ignore_patterns("__pycache__", "cards", "evidence"))
    file = root / "claims" / "beds" / "_named.py"
    text = file.read_text()
    functions = {name: claims.get(name).function for name in ("squentropy", "batch-hard-triplet", "simclr")}

    def prints() -> dict[str, object]:
        source = Library(root)
        return {name: source.footprint(f.__module__, f.__qualname__, ()).claim for name, f in functions.items()}

    def found(old: str, new: str) -> set[str]:
        assert old in text
        file.write_text(text.replace(old, new))
        now = prints()
        return {name for name in before if before[name] != now[name]}

    before = prints()
    assert found("NAMED = {", 'ANOTHER = _bed("another", "Another bed", "cifar10")\nNAMED = {') == set()
    assert found("count=5000,tested=2000", "count=6000,tested=2000") == {"simclr"}
    assert found('"CIFAR-10, frozen', '"CIFAR10, frozen') == {"squentropy"}
    assert found("eight alphabets", "8 alphabets") == {"batch-hard-triplet"}


def test_moves_change_nothing(tmp_path: Path):
    """A file into a folder, a helper into another file, a room to another name: the definitions are the same."""
    before = footprint(tmp_path / "a")
    footprint(tmp_path / "b")
    root = tmp_path / "b" / "repertoire"
    (root / "loss" / "logits").mkdir(parents=True)
    (root / "losses" / "_one.py").rename(root / "loss" / "logits" / "_single.py")
    (root / "losses" / "_help.py").rename(root / "loss" / "_helpers.py")
    (root / "losses" / "__init__.py").unlink()
    (root / "loss" / "__init__.py").write_text("from repertoire.loss.logits._single import One as One\n")
    moved = root / "loss" / "logits" / "_single.py"
    moved.write_text(moved.read_text().replace("repertoire.losses._help", "repertoire.loss._helpers"))
    paper = root / "claims" / "family" / "paper.py"
    text = paper.read_text().replace("import losses", "import loss").replace("losses.One", "loss.One")
    paper.unlink()
    (root / "claims" / "elsewhere").mkdir()
    (root / "claims" / "elsewhere" / "it.py").write_text(text)
    after = read(root, "repertoire.claims.elsewhere.it")
    assert dataclasses.replace(after, trunk=before.trunk) == before


def test_it_says_which_file_did_it(tmp_path: Path):
    before, after = footprint(tmp_path / "a"), replaced(tmp_path / "b", "losses/_help.py", "x * y", "x / y")
    files = {"help_out": "losses/_help.py"}
    found = compare_footprints(before, after, files)
    assert (found.state, found.changed) == ("stale", ("losses/_help.py: help_out",))
    gone = compare_footprints(dataclasses.replace(before, claim={**before.claim, "old": "1"}), before, files)
    assert gone.changed == ("no longer there: old",)
    assert compare_footprints(before, before, files).state == "fresh"
    assert compare_footprints(dataclasses.replace(before, trunk="1"), before, files).state == "aged"
    assert compare_footprints(None, before, files).state == "stale"


def test_supcon_that_returns_zero_is_stale(tmp_path: Path):
    """The review's case: a component of the card is emptied, and its evidence notices."""
    import shutil

    root = tmp_path / "repertoire"
    shutil.copytree(library().root, root, ignore=shutil.ignore_patterns("__pycache__", "cards", "evidence"))
    place = Library(root).dotted("repertoire.losses.supcon_loss")
    assert place is not None
    module = Library(root).module(place[0])
    assert module is not None
    text = module.path.read_text()
    claim = claims.get("supcon")
    known = (claim.function.__module__, claim.function.__qualname__, papers.get("supcon").components)
    before = Library(root).footprint(*known)
    assert before.components == library().footprint(*known).components
    lines = text.splitlines()
    end = module.definitions["supcon_loss"][0].end_lineno
    assert end is not None
    lines.insert(end, "    return 0.0 * logits.sum()")
    module.path.write_text("\n".join(lines))
    changed = Library(root)
    found = compare_footprints(before, changed.footprint(*known), changed.files([place]))
    assert found.state == "stale"
    assert found.changed == (f"{module.path.relative_to(root).as_posix()}: supcon_loss",)


def test_freshness_of_everything_is_known_without_torch_and_quickly():
    program = (
        "import sys; from repertoire.claims._footprint import library; "
        "print(len(library().trunk), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["10", "False"]


def test_the_trunk_is_what_a_claim_is_about_only_where_its_card_says_so():
    built = ["repertoire.data.digits", "repertoire.rules.Backprop", "repertoire.losses.CrossEntropy"]
    assert components_of(claims.get("sam"), built) == ["repertoire.losses.CrossEntropy", "repertoire.rules.SAM"]


def test_equal_figures_make_stale_evidence_fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    claim = claims.get("lpntk")
    calls = []

    def measured(claim, budget, seed):
        calls.append(seed)
        return _harness.Timed(claims.Measured(0.5, 0.6 + 0.01 * seed), 1.0, frozenset())

    monkeypatch.setattr(_harness, "_measure", measured)
    stored = claims.run(claim.name, "small", folder=tmp_path)
    assert claims.freshness(stored, claim).state == "fresh"
    old = dataclasses.replace(stored, footprint={**stored.footprint, "claim": {"before": "1"}})
    old.write(tmp_path)
    assert claims.freshness(old, claim).state == "stale"
    calls.clear()
    ((_, same),) = claims.refresh([claim], folder=tmp_path)
    assert (same, calls) == (True, [0])
    now = claims.evidence(claim.slug, folder=tmp_path)
    assert now is not None
    assert now.confirmed
    assert claims.freshness(now, claim).state == "fresh"
    assert list(claims.refresh([claim], folder=tmp_path)) == []
    dataclasses.replace(old, values=[[9.0, 9.0], *old.values[1:]]).write(tmp_path)
    assert [same for _, same in claims.refresh([claim], folder=tmp_path)] == [False]


@pytest.mark.parametrize(
    ("before", "now", "spread", "seeds", "verdict"),
    [
        ({}, {}, 0.1, 20, "does not hold"),
        ({}, {"overlap": 0.1}, 0.1, 20, "undecided"),
        ({}, {"overlap": 0.1}, 0.01, 5, "does not hold"),
        ({}, {"overlap": 0.1}, 0.048, 5, ""),  # more seeds may decide
        ({"overlap": 0.1}, {}, 0.077, 20, ""),  # ten seeds would have been enough
        ({}, {"threshold": 0.5}, 0.01, 5, ""),
        ({}, {"strict": False}, 0.01, 5, ""),
        ({}, {"arms": ("others", "yet others")}, 0.01, 5, ""),
        ({}, {"learned": 0.0, "trivial": 1.0}, 0.01, 5, "no answer"),
        ({}, {"learned": 0.0, "floor": lambda budget, seed: 0.4 + 0.01 * seed}, 0.01, 5, "does not hold"),
        ({}, {"learned": 0.0, "floor": lambda budget, seed: 0.5 + 0.01 * seed}, 0.01, 5, "no answer"),
    ],
)
def test_what_is_confirmed_is_decided_anew(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    before: dict[str, object],
    now: dict[str, object],
    spread: float,
    seeds: int,
    verdict: str,
):
    """A method that gains a fifth of the threshold; "" where it is to be measured in full."""

    def gained(budget: claims.Budget, seed: int) -> claims.Measured:
        return claims.Measured(0.52 + spread * (2 * (seed % 2) - 1), 0.5)

    whole = claims.Claim("gains", "It gains.", "value", ("method", "baseline"), "none", "drawn", 0.1, gained)
    monkeypatch.setattr(_harness, "_measure", lambda claim, *at: _harness.Timed(claim(*at), 1.0, frozenset()))
    (found,) = claims.run_all([dataclasses.replace(whole, **before)], "small", folder=tmp_path)  # type: ignore[arg-type]
    assert isinstance(found, claims.Evidence)
    assert (found.verdict, len(found.seeds)) == ("does not hold", seeds)
    dataclasses.replace(found, footprint={**found.footprint, "claim": {"before": "1"}}).write(tmp_path)
    claim = dataclasses.replace(whole, **now)  # type: ignore[arg-type]
    assert [same for _, same in claims.refresh([claim], folder=tmp_path)] == [bool(verdict)]
    if verdict:
        again = claims.evidence("gains", folder=tmp_path)
        assert again is not None
        assert (again.verdict, again.overlap, again.values) == (verdict, claim.overlap, found.values)
        expected = [claim.floor_of(claims.Budget("small"), seed) for seed in found.seeds] if claim.floor else None
        assert again.trivial == (expected or ([claim.trivial] * seeds if claim.trivial else None))


def test_the_code_before_tells_what_a_change_did_where_the_stored_figures_are_of_another_machine(tmp_path: Path):
    """The claim takes a moment; the checkout from before the change is the one that is here."""
    claim = claims.get("imbalanced-semi-self:two-gaussians")
    stored = claims.run(claim.name, "small", folder=tmp_path)
    strange = dataclasses.replace(stored, values=[[9.0] for _ in stored.values])
    stale = {**stored.footprint, "claim": {"before": "1"}}
    lines: list[str] = []

    def fresh_again(then: claims.Evidence) -> bool:
        dataclasses.replace(strange, footprint=stale).write(tmp_path)
        with pytest.MonkeyPatch.context() as patched:
            # What the checkout before has stored is not stale there.
            patched.setattr(_again, "_first_seed", lambda source, _, *more: first_seed(source, then, *more))
            ((_, same),) = claims.refresh(
                [claim], folder=tmp_path, before=Path(claims.__file__).parents[2], progress=lines.append
            )
        return same

    first_seed = _again._first_seed
    assert fresh_again(strange)
    assert lines == [f"{claim.name}: the same figures as of the code before at seed 0"]
    now = claims.evidence(claim.slug, part=claim.part, folder=tmp_path)
    assert now is not None
    assert (now.values, claims.freshness(now, claim).state) == (strange.values, "fresh")
    assert not fresh_again(dataclasses.replace(strange, footprint=stale))
    assert lines[1:] == [
        f"{claim.name}: the evidence is stale in the code before, too",
        f"{claim.name}: other figures at seed 0",
    ]


def test_an_arm_is_measured_once_and_again_when_its_code_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("REPERTOIRE_CACHE", str(tmp_path))
    calls = []

    def figures(budget: claims.Budget, seed: int, *, width: int = 3) -> dict[str, float]:
        calls.append((seed, width))
        return {"accuracy": seed + width}

    figures.__module__ = "repertoire.claims.beds.digits"  # as if it were defined there
    figures.__qualname__ = figures.__name__ = "share_right"
    kept = _arms.arm(figures)
    small = claims.Budget("small")
    assert kept(small, 1) == kept(small, 1) == kept(small, seed=1, width=3) == {"accuracy": 4.0}
    assert calls == [(1, 3)]
    kept(small, 2)
    kept(small, 1, width=5)
    kept(claims.Budget("smoke"), 1)
    kept(claims.Budget("smoke"), 1)
    assert calls == [(1, 3), (2, 3), (1, 5), (1, 3), (1, 3)]
    with _arms.recording() as ledger:
        kept(small, 1)
    assert ledger.saved > 0
    monkeypatch.setattr(_arms, "_code", lambda function, built: "another")
    kept(small, 1)
    assert len(calls) == 6

"""Commands on the pages exist, with the options that they are shown with."""

from __future__ import annotations

import itertools
import re
import shlex

import pytest
import typer
from pages import PAGES, ROOT, blocks, name

from repertoire import diagnostics, explain, losses, registry
from repertoire.cli import build_app
from repertoire.errors import RepertoireError

_CODE = re.compile(r"`(repertoire [^`\n]+)`")


def commands(page):
    text = page.read_text(encoding="utf-8")
    found = _CODE.findall(text)
    for block in blocks(page, "sh"):
        found += re.findall(r"(?:^|[|;] )(?:torchrun .*? -m )?(repertoire [^#|\n]+)", block.code, re.MULTILINE)
    return [command.strip() for command in found]


@pytest.fixture(scope="module")
def tree():
    return typer.main.get_command(build_app(["train", "continue", "plan", "compare", "self-train"]))


def test_the_pages_show_commands():
    assert sum(len(commands(page)) for page in PAGES) > 50


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=name)
def test_commands_exist(page, tree):
    for command in commands(page):
        words = shlex.split(command)[1:]
        node = tree
        while words and hasattr(node, "commands") and not words[0].startswith("-"):
            assert words[0] in node.commands, f"{command!r}: {words[0]!r} is no command"
            node = node.commands[words.pop(0)]
        known = {option for parameter in node.params for option in (*parameter.opts, *parameter.secondary_opts)}
        for word in words:
            if word == "--":
                break
            if word.startswith("-") and word not in ("--help", "--debug"):
                assert word.partition("=")[0] in known, f"{command!r}: {word!r} is no option"


_ROOMS = {
    "--loss": "losses", "--head": "heads", "--backbone": "backbones", "--rule": "rules", "--method": "methods",
    "--augment": "augmentations", "--explainer": "explainers", "--adapter": "adapters", "--protocol": "protocols",
    "--selector": "selectors", "--operator": "weight-operators", "--estimator": "feature-estimators",
}  # fmt: skip
_EXAMPLES = ("modest", "NAME")  # what the pages themselves define


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=name)
def test_components_in_commands_exist(page):
    for command in commands(page):
        for option, value in itertools.pairwise(shlex.split(command)):
            if option in _ROOMS:
                grouping = option == "--method" and command.startswith("repertoire discover ")
                known = {*registry.names("discoverers" if grouping else _ROOMS[option]), *_EXAMPLES}
                if option == "--method" and " --attributes " in command:
                    known = {"zero-shot"}  # a name of the command's own: what is described is no method's matter
                assert value.partition(":")[0] in known, f"{command!r}: {value!r} is not registered"


def test_slugs_in_commands_exist():
    from repertoire import claims, papers

    for page in PAGES:
        for command in commands(page):
            if match := re.match(r"repertoire (papers show|claims run|claims show) ([a-z][\w-]*)", command):
                room, slug = match.groups()
                (papers.get if room.startswith("papers") else claims.get)(slug)


def test_options_of_components_on_the_choice_page_parse():
    text = (ROOT / "docs" / "guide" / "choose.md").read_text(encoding="utf-8")
    cells = re.findall(r"^\|[^|]*\|([^|]*)\|", text, re.MULTILINE)
    named = {
        spec for cell in cells for spec in re.findall(r"`([^`]+)`", cell)
        if not spec.startswith(("-", "repertoire ", "repertoire."))
    }  # fmt: skip
    assert "supcon" in named
    public = {*diagnostics.__all__, *explain.__all__, *losses.__all__}
    known = {name for kind in registry.KINDS for name in registry.names(kind)}
    for spec in named - {f"timm:{rest}" for rest in ("resnet18", "resnet50,pretrained=true")}:
        function = spec.partition("(")[0]
        assert function in public or registry.parse(spec).name in known, spec
    with pytest.raises(RepertoireError):
        registry.build("losses", "cross-entropy:smoothing=0.1")

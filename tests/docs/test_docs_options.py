"""Options that the pages name are options, with values that are taken, and the defaults that the guide names are so."""

from __future__ import annotations

import re
import shlex

import pytest
import typer
from pages import PAGES, ROOT, name

from repertoire import recipe
from repertoire.cli import build_app
from repertoire.cli.train import complete
from repertoire.data import load
from repertoire.recipe import TrainConfig, make_config

_OF_OTHERS = (
    "--nproc-per-node",
    "--nthreads",
    "--data-binary",
    "--no-deps",
    "--force-reinstall",
    "--standalone",
    "--nnodes",
    "--rdzv-endpoint",
)
"""Options of other programs that the pages show."""


def named(text: str) -> list[str]:
    """What stands in inline code and begins with an option."""
    return re.findall(r"`(--[a-z][^`\n]*)`", text)


@pytest.fixture(scope="module")
def tree():
    return typer.main.get_command(build_app(["train", "plan", "compare", "self-train"]))


@pytest.fixture(scope="module")
def flags(tree):
    found, waiting = set(), [tree]
    while waiting:
        node = waiting.pop()
        waiting += list(getattr(node, "commands", {}).values())
        found |= {option for parameter in node.params for option in (*parameter.opts, *parameter.secondary_opts)}
    return {*found, "--help", "--debug"}


@pytest.mark.parametrize("page", [page for page in PAGES if named(page.read_text(encoding="utf-8"))], ids=name)
def test_options_in_a_sentence_exist(page, flags):
    elsewhere = answered(page)
    for text in named(page.read_text(encoding="utf-8")):
        for word in shlex.split(text):
            flag = word.partition("=")[0]
            if flag.startswith("--") and flag != "--" and flag not in (*_OF_OTHERS, *elsewhere):
                assert flag in flags, f"{text!r} on {name(page)}: there is no {flag}"


def answered(page) -> set[str]:
    """Options of other tools, in the paragraph that says what they are called here."""
    text = page.read_text(encoding="utf-8")
    _, _, section = text.partition("## Names from elsewhere")
    return set(re.findall(r"`(--[a-z-]+)`\s+with\s+`", section))


def rows() -> list[str]:
    """The third column of the guide's table of what is chosen."""
    text = (ROOT / "docs" / "guide" / "train.md").read_text(encoding="utf-8")
    table = text.partition("| what | by default | option |")[2].partition("\n\n")[0]
    return [option for line in table.split("\n")[2:] for option in re.findall(r"`([^`]+)`", line.split("|")[3])]


def test_the_table_has_a_row_for_each_choice():
    assert len(rows()) >= 12


@pytest.mark.parametrize("option", rows())
def test_what_the_table_shows_is_taken(option: str, tree):
    if not option.startswith("--"):
        option = f"--fit {option}"  # further values of the option before
    given = tree.commands["train"].make_context("train", complete(["digits", *shlex.split(option)])).params
    chosen = {k: v for k, v in given.items() if k in TrainConfig.model_fields and v not in (None, (), [])}
    assert len(chosen) > 1 or "--out" in option
    if "tune" in chosen:
        chosen |= {"backbone": "resnet20", "weights": "w.safetensors"}  # what the head is to be trained on
    recipe.resolve(make_config(**chosen), load("digits"))


def test_the_defaults_of_the_table_are_those():
    splits = load("digits")
    found = recipe.resolve(make_config(data="digits", device="cpu"), splits)
    assert (found.optimizer, found.schedule, found.fit, found.loss) == ("sgd", "cosine", "crop", "cross-entropy")
    assert (found.backbone, found.tune, found.epochs) == ("convnet", "all", 20)
    assert found.batch_size <= 128
    with_weights = make_config(data="digits", device="cpu", backbone="resnet20", weights="w.safetensors")
    tuned = recipe.resolve(with_weights, splits)
    assert (tuned.optimizer, tuned.tune, tuned.epochs >= 10) == ("adamw", "auto", True)
    head = recipe.resolve(with_weights.model_copy(update={"tune": "head"}), splits)
    assert head.epochs >= 60

"""Every command that the pages of components and papers print is accepted: its first step is taken on tiny data."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer
from pages import PAGES
from PIL import Image
from safetensors.torch import save_file
from site_build.components import FEATURES, NUMBERED, PHOTOS, RUN, SCENES, TAGGED, try_it, wanted
from test_docs_commands import commands

from repertoire import backbones, registry
from repertoire.cli import build_app
from repertoire.errors import ConfigError
from repertoire.protocols import follow
from repertoire.recipe import TrainConfig, load_splits, make_config
from repertoire.train import fit, rehearse

TRAINED = (
    "adapters", "augmentations", "backbones", "losses", "heads", "methods", "rules", "auxiliaries", "protocols",
)  # fmt: skip
PARTS = ("train", "val", "test")
ENTRIES = [
    entry for kind in TRAINED for entry in registry.entries(kind) if entry.factory.__module__.startswith("repertoire")
]
COMMANDS = {entry: try_it(entry.dotted, entry)[1] for entry in ENTRIES}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folders that the commands name, with a few images each."""
    root = tmp_path_factory.mktemp("folders")
    rng = np.random.default_rng(0)

    def draw(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)

    mask = np.zeros((32, 32), np.uint8)
    mask[8:24, 8:24] = 255
    for name in ("cat", "dog", "owl"):
        (root / "masked" / "masks" / name).mkdir(parents=True)
        for i in range(16):
            draw(root / PHOTOS / name / f"{i}.png")
            draw(root / "masked" / name / f"{i}.png")
            Image.fromarray(mask).save(root / "masked" / "masks" / name / f"{i}.png")
    for i in range(48):
        draw(root / PHOTOS / "unlabelled" / f"{i}.png")
        draw(root / TAGGED / f"{i}.png")
        draw(root / NUMBERED / f"{i}.png")
        draw(root / SCENES / "images" / f"{i}.png")
        (root / SCENES / "maps").mkdir(exist_ok=True)
        Image.fromarray(mask // 255).save(root / SCENES / "maps" / f"{i}.png")
    tags = rng.integers(0, 2, (48, 3))
    rows = "".join(f"{i}.png,{a},{b},{c}\n" for i, (a, b, c) in enumerate(tags))
    (root / TAGGED / "labels.csv").write_text(f"path,sky,sea,sand\n{rows}")
    ages = "".join(f"{i}.png,{20 + 0.5 * i}\n" for i in range(48))
    (root / NUMBERED / "labels.csv").write_text(f"path,age\n{ages}")
    np.savez(root / FEATURES, features=rng.normal(size=(48, 6)).astype(np.float32), labels=np.arange(48) % 3)
    save_file(backbones.resnet20(width=4).state_dict(), root / "weights.safetensors")
    found = {name: root / name for name in (PHOTOS, TAGGED, NUMBERED, SCENES, FEATURES, "masked")}
    small = {"size": 32, "backbone": "resnet20:width=4", "epochs": 1, "batch_size": 16, "device": "cpu"}
    run = fit(root / PHOTOS, out=root / "run", **small)
    found["more/"] = root / "more"
    for i in range(48):
        draw(root / "more" / f"{i}.png")
    return {**found, "weights": root / "weights.safetensors", RUN: run.path}


def typed(command: str, folders: dict[str, Path]) -> tuple[TrainConfig, str | None]:
    """The configuration and the protocol of a command as the command line reads it, small where it leaves that open."""
    words = shlex.split(command)[1:]
    words = [str(folders.get(word, word)) for word in words]
    tree = typer.main.get_command(build_app(words))
    given = tree.commands["train"].make_context("train", words[1:]).params
    chosen = {
        name: value for name, value in given.items() if name in TrainConfig.model_fields and value not in (None, (), [])
    }
    small = {"batch_size": 16, "device": "cpu", "epochs": 1}
    if not chosen["data"].endswith(".npz"):
        # A network that local learning can cut into blocks, and that has maps for heads that look at them.
        small |= {"size": 32, "backbone": "resnet20:width=4"}
        method = registry.parse(chosen.get("method", "supervised")).name
        if (brought := registry.get("methods", method).factory.needs.defaults.get("backbone")) is not None:
            small["backbone"] = f"{brought}:patch=8,dim=16,depth=2,heads=2"
        if "tune" in chosen and "backbone" not in chosen:
            # The small network stands for one that has been trained.
            small["weights"] = str(folders["weights"])
    return make_config(**{**small, **chosen}), given["protocol"]


def accepted(command: str, folders: dict[str, Path], out: Path) -> None:
    """Takes the first step of a command, or goes through all its stages, of which the last may be refused too."""
    config, protocol = typed(command, folders)
    try:
        if protocol is None:
            rehearse(config, load_splits(config))
        else:
            splits = load_splits(config)
            few = {name: part.subset(range(min(64, len(part)))) for name, part in vars(splits).items() if name in PARTS}
            follow(protocol, config.model_copy(update={"epochs": 1}), replace(splits, **few), out, bounds=False)
    except ConfigError as error:
        if "which is not installed" not in str(error):
            raise
        pytest.skip("its weights are in a package that is not installed")


def test_most_components_have_a_command() -> None:
    without = [entry.name for entry, command in COMMANDS.items() if not command]
    assert len(without) < 0.15 * len(COMMANDS), without


@pytest.mark.parametrize("entry", [e for e in ENTRIES if COMMANDS[e]], ids=lambda e: f"{e.kind}-{e.name}")
def test_the_command_is_accepted(entry: registry.Entry, folders: dict[str, Path], tmp_path: Path) -> None:
    masked = "masks/" in " ".join(wanted(entry))
    accepted(COMMANDS[entry], {**folders, PHOTOS: folders["masked"]} if masked else folders, tmp_path / "stages")


_ELSEWHERE = (
    *("--resume", "--weights", "--start", "--teacher", "-c", "--config", "--plugins", "--track"),
    *("--pipeline", "--strategy", "--attributes"),
)
"""Options with which a command of the guide goes on from what another one has made, takes several processes, or reads a
table that describes the reader's classes."""


def shown() -> list[str]:
    """The training commands of the pages that people wrote, on the folders above."""
    found = {command for page in PAGES for command in commands(page) if command.startswith("repertoire train ")}
    return sorted(
        command
        for command in found
        if shlex.split(command)[2] in (PHOTOS, TAGGED, NUMBERED, SCENES, FEATURES, "digits", "shapes")
        and not {word.partition("=")[0] for word in shlex.split(command)} & set(_ELSEWHERE)
        and not re.search(r"\b[A-Z]{3,}\b|modest|pretrained=true", command)
    )


def test_the_guide_shows_training_commands() -> None:
    assert len(shown()) > 8


@pytest.mark.parametrize("command", shown())
def test_a_command_of_the_guide_is_accepted(command: str, folders: dict[str, Path], tmp_path: Path) -> None:
    accepted(command, folders, tmp_path / "stages")

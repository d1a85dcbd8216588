"""Options that several commands have, and what opens the runs that they name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from repertoire.errors import Unreadable
    from repertoire.train import Ensemble, Run

__all__ = [
    "DeviceOption",
    "EnsembleOption",
    "ImagesArgument",
    "NullOption",
    "PluginOption",
    "RunArgument",
    "SkipOption",
    "TtaOption",
    "answer_options",
    "file_out",
    "folder_out",
    "holds_folds",
    "open_run",
    "open_runs",
    "report_failures",
    "safe_cell",
    "skips",
]

RunArgument = Annotated[Path, typer.Argument(help="Directory of a run.", show_default=False)]
ImagesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        help="Image files, directories, or a .csv file with paths and labels; none, or -, reads an image or a list of "
        "files from standard input. Of a run on features: a file of them, .npz or .safetensors.",
        show_default=False,
    ),
]
NullOption = Annotated[bool, typer.Option("-0", "--null", help="The list on standard input is separated by NUL bytes.")]
SkipOption = Annotated[
    bool | None,
    typer.Option(
        "--skip-unreadable/--no-skip-unreadable",
        help="Images that cannot be used are no error; by default as in training.",
        show_default=False,
    ),
]
DeviceOption = Annotated[
    str, typer.Option("--device", help="auto (a GPU if there is one), cpu, cuda or cuda:N.", show_default=True)
]
PluginOption = Annotated[
    list[str] | None,
    typer.Option(
        "--plugin",
        metavar="MODULE",
        help="Import this module first, which registers components that the run was trained with. A run's own plugins "
        "are code, and are never imported unless they are named here.",
        show_default=False,
    ),
]
TtaOption = Annotated[
    bool,
    typer.Option("--tta", help="Average over shifted and mirrored versions of each image; five or ten times the work."),
]
EnsembleOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--ensemble", metavar="RUN", help="Average with this run, which has the same classes; again for more.",
        show_default=False,
    ),
]  # fmt: skip


def file_out(text: str | Path) -> Path:
    """Reads the value of an --out that names a file; refuses one that cannot be written before anything is done.

    Raises:
        RunError: says what stands in the way.
    """
    from repertoire.files import check_place

    return check_place(text, "--out")


def folder_out(text: str | Path, flag: str = "--out") -> Path:
    """Reads the value of an option that names a folder to write to; see `file_out`."""
    from repertoire.files import check_place

    return check_place(text, flag, folder=True)


def open_run(path: Path, device: str = "cpu", plugins: Sequence[str] | None = None) -> Run:
    """The run in a directory, computing on a device."""
    from repertoire.train import load

    return load(path, device=device, plugins=tuple(plugins or ()))


def open_runs(
    first: Path, others: Sequence[Path] | None, device: str, plugins: Sequence[str] | None
) -> tuple[Run, Run | Ensemble]:
    """The first run, and what answers: itself, the folds that lie there, or the ensemble of all."""
    from repertoire.train import Ensemble, Folds

    if holds_folds(first) and not others:
        folds = Folds(first, device=device, plugins=tuple(plugins or ()))
        return folds.runs[0], folds
    places: list[Path] = []
    for path in (first, *(others or ())):
        places += [run.path for run in Folds(path).runs] if holds_folds(path) else [path]
    runs = [open_run(path, device, plugins) for path in places]
    return runs[0], runs[0] if len(runs) == 1 else Ensemble(runs)


def holds_folds(path: Path) -> bool:
    """True if the runs of a cross-validation lie in a directory."""
    return (path / "folds.json").is_file()


def safe_cell(text: str) -> str:
    """Text as a cell of a CSV file: control characters are escaped, and no spreadsheet takes it for a formula.

    A name of a file or a class may come from anyone. A quote in front makes text of what begins like a formula.

    >>> safe_cell("=cmd|'/c calc'!A1"), safe_cell("a.png"), safe_cell("-dash.png")
    ("'=cmd|'/c calc'!A1", 'a.png', "'-dash.png")
    """
    from repertoire.errors import ascii_path

    shown = ascii_path(text)
    return f"'{shown}" if shown.startswith(("=", "+", "-", "@")) and shown != "-" else shown


def skips(run: Run, given: bool | None) -> bool:
    """True if images that cannot be used are left out: as the user says, or as in training."""
    return run.config.skip_unreadable if given is None else given


def report_failures(failures: list[Unreadable], total: int, skip: bool) -> None:
    """Says how many images were skipped, or raises `UnreadableImages`."""
    from repertoire.errors import UnreadableImages

    if not failures:
        return
    error = UnreadableImages(failures, total)
    if not skip:
        raise error
    typer.echo(f"{len(failures)} of {total} images were skipped", err=True)


def answer_options(app: typer.Typer, arguments: Sequence[str]) -> None:
    """Answers options that other tools have with what they are called here.

    Raises:
        ConfigError: one of the arguments is such an option.
    """
    import re

    from repertoire._aliases import answer_for
    from repertoire.errors import ConfigError

    command = typer.main.get_command(app)
    for word in arguments:
        if hasattr(command, "commands") and word in command.commands:
            command = command.commands[word]
    known = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
    names = [flag[2:].replace("-", "_") for flag in known if flag.startswith("--")]
    for word in arguments:
        if word == "--":
            return
        flag = word.partition("=")[0]
        if not flag.startswith("--") or flag in known or flag in ("--help", "--debug"):
            continue
        answer = answer_for("training option", flag[2:], names)
        if answer is not None:
            ours = re.sub(r"'(\w+)'", lambda found: "--" + found[1].replace("_", "-"), answer)
            raise ConfigError(f"no such option: {flag}; {ours}")

"""The `repertoire` command: parse, call, print.

Each command is a file of this folder, and imports what it needs when it runs, so that `repertoire --help` is quick.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import typer

from repertoire.errors import (
    Interrupted,
    RankLost,
    RepertoireError,
    RepertoireWarning,
    ascii_path,
    speak_command_line,
)

__all__ = ["build_app", "main"]

HELP = """Representation learning in which every method can be performed.

Start with:  repertoire train PHOTOS/   where PHOTOS has a directory of images for each class."""


SPINS = "5000"
"""How often a thread of PyTorch looks whether the others are there, before it sleeps, where cores are not its own."""

_CONFIGURED = {"train", "plan", "compare", "self-train", "continue"}
"""Commands whose options are read off the configuration of a run."""


def build_app(arguments: Sequence[str] = ()) -> typer.Typer:
    """The command tree. Options are read off the configuration only if `arguments` name a command that takes them."""
    from repertoire.cli import (
        catalogue,
        claims,
        compare,
        compress,
        continue_,
        diagnose,
        discover,
        evaluate,
        explain,
        export,
        fit_features,
        merge,
        papers,
        plan,
        predict,
        protect,
        report,
        select,
        self_train,
        stitch,
        train,
        zoo,
    )

    app = typer.Typer(
        name="repertoire", help=HELP, no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False,
        context_settings={"help_option_names": ["-h", "--help"]}, rich_markup_mode=None,
    )  # fmt: skip
    configured = (
        ("train", train), ("continue", continue_), ("plan", plan), ("compare", compare), ("self-train", self_train)
    )  # fmt: skip
    for name, module in configured:
        # Only what is called: to read the options of another may take an import of torch.
        app.command(name)(module.make_command() if name in arguments else module.outline)
    app.command("evaluate")(evaluate.evaluate)
    app.command("diagnose")(diagnose.diagnose)
    app.command("predict")(predict.predict)
    app.command("embed")(predict.embed)
    app.command("explain")(explain.explain)
    app.command("report")(report.report)
    app.command("export")(export.export)
    app.command("select")(select.select)
    app.command("protect")(protect.protect)
    app.command("merge")(merge.merge)
    app.command("stitch")(stitch.stitch)
    app.command("compress")(compress.compress)
    app.command("discover")(discover.discover)
    app.command("fit-features")(fit_features.fit_features)
    app.command("list")(catalogue.list_components)
    app.add_typer(papers.app, name="papers")
    app.add_typer(claims.app, name="claims")
    app.add_typer(zoo.app, name="zoo")

    @app.callback(invoke_without_command=True)
    def options(
        version: bool = typer.Option(False, "--version", help="Print the version and stop."),
        debug: bool = typer.Option(False, "--debug", help="Print the traceback of an error (anywhere on the line)."),
    ) -> None:
        if version:
            import repertoire

            typer.echo(f"repertoire {repertoire.__version__}")
            raise typer.Exit

    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command. Ends with status 0; 2 after an error, which is printed on one line; 130 after Ctrl-C."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    _wait_asleep()
    streams = sys.stdout, sys.stderr
    showing = warnings.showwarning
    _prepare_streams()
    speak_command_line()
    warnings.showwarning = _show_warning
    try:
        _run(arguments, debug)
    finally:
        warnings.showwarning = showing
        speak_command_line(False)
        sys.stdout, sys.stderr = streams


def _run(arguments: list[str], debug: bool) -> None:
    from repertoire.cli._options import answer_options

    try:
        if not _CONFIGURED.isdisjoint(arguments):
            from repertoire.cli.train import complete

            arguments = complete(arguments)
        app = build_app(arguments)
        if any(word.startswith("--") for word in arguments):
            answer_options(app, arguments)
        app(args=arguments, prog_name="repertoire")
    except RepertoireError as error:
        if debug:
            raise
        # Under torchrun one rank speaks for all, unless it is the one that is gone.
        if os.environ.get("RANK", "0") == "0" or isinstance(error, RankLost):
            print(f"repertoire: {error}", file=sys.stderr)
        sys.exit(130 if isinstance(error, Interrupted) else 2)
    except OSError as error:
        if debug:
            raise
        where = f"{ascii_path(os.fsdecode(error.filename))}: " if isinstance(error.filename, str | bytes) else ""
        print(f"repertoire: {where}{error.strerror or error}", file=sys.stderr)
        sys.exit(2)


def _wait_asleep() -> None:
    """On a busy machine, threads that wait for each other sleep soon, unless the environment says how they wait.

    PyTorch's threads meet at the end of every operation, and GCC's OpenMP has those that are early look again and again
    for milliseconds. On cores of one's own nobody waits that long, and to sleep and be woken takes longer. Where other
    programs run, the thread that is waited for may be the one that does not run meanwhile. It is read when PyTorch is
    loaded, and a library must not decide it for a program; this command is one.
    """
    if "torch" in sys.modules or {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        return
    if shares_cores():
        os.environ["GOMP_SPINCOUNT"] = SPINS


def shares_cores(proc: Path = Path("/proc/loadavg"), limit: Path = Path("/sys/fs/cgroup/cpu.max")) -> bool:
    """Whether other programs want half of the cores or more at this moment, or a container may use less than it has.

    Args:
        proc: the kernel's account of how many threads are about to run; this one is among them.
        limit: that of a container, "max" or microseconds, and of how many.
    """
    cores = os.cpu_count() or 1
    try:
        quota, period = limit.read_text().split()
        if quota != "max" and int(quota) < cores * int(period):
            return True
    except (OSError, ValueError):
        pass
    seen = []
    try:
        for _ in range(5):
            seen.append(int(proc.read_text().split()[3].partition("/")[0]) - 1)
            time.sleep(0.002)
    except (OSError, ValueError, IndexError):
        return False
    return sorted(seen)[2] >= max(1, cores / 2)


def _prepare_streams() -> None:
    """Standard streams that can be written to: results keep every character, and who only watches ends nothing."""
    from repertoire.train import Forgiving

    if sys.stdout is None:  # closed by the shell: >&-
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    elif hasattr(sys.stdout, "reconfigure"):
        # What the encoding of the terminal or of a file cannot hold is escaped, instead of ending the command.
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.stderr = Forgiving(sys.stderr)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: object = None,
    line: str | None = None,
) -> None:
    """Our own warnings in a line; those of the libraries underneath are for developers, not for users of a command."""
    if issubclass(category, RepertoireWarning):
        print(f"repertoire: {message}", file=sys.stderr)

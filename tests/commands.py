"""Commands, as a user would give them, in the process of the test."""

from __future__ import annotations

import pytest

from repertoire import cli

__all__ = ["run_cli"]


def run_cli(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """The status that a command ends with, and what it writes to standard output and to standard error."""
    status = 0
    try:
        cli.main([str(argument) for argument in arguments])
    except SystemExit as stop:
        status = int(stop.code or 0)
    captured = capsys.readouterr()
    return status, captured.out, captured.err

"""Tables of what there is, on a terminal."""

from __future__ import annotations

import pytest

from repertoire.cli._listing import print_table


@pytest.mark.parametrize("width", [60, 200])
def test_a_table_on_a_terminal(width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With a terminal, rich draws the table; brackets in a title are text, not markup."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", str(width))
    print_table(("id", "title"), [("1", "A [bold] title")])
    assert "A [bold] title" in capsys.readouterr().out

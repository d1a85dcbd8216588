"""Runs the Python of every page, page by page, in one process of its own: `session.py FOLDER RESULT.json`.

A process of its own because pages register components, which no other test should meet; one for all pages because
starting one takes longer than what most of them do.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path

from pages import PAGES, blocks, name


def run(page: Path, folder: Path) -> str:
    """What went wrong, or nothing. The blocks share a namespace: a later one may use what an earlier one made."""
    folder.mkdir()
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    namespace = {"__name__": "__page__"}
    try:
        for block in blocks(page, "python"):
            if block.of_the_repository:
                continue
            if block.file:
                Path(block.file).write_text(block.code, encoding="utf-8")
            else:
                exec(compile(block.code, name(page), "exec"), namespace)
    except Exception:
        return traceback.format_exc()
    finally:
        sys.path.remove(str(folder))
    return ""


if __name__ == "__main__":
    root, result = Path(sys.argv[1]), Path(sys.argv[2])
    pages = [page for page in PAGES if blocks(page, "python")]
    result.write_text(json.dumps({name(page): run(page, root / str(number)) for number, page in enumerate(pages)}))

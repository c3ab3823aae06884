"""The files of an inspection: JSON, the page of depths, and the figures of `analysis`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from ledger.files import write_atomically
from ledger.folder import RunFolder
from mor.config import UserError
from mor.evaluate.depth_page import page
from mor.evaluate.inspection import Inspection, routes


@dataclass(frozen=True)
class Written:
    """Where it stands."""

    json: Path
    pages: tuple[Path, ...]


def write(found: Inspection, source: Path, out: Path | None) -> Written:
    """Write JSON, and of a model that routes the page of depths. Raises UserError where they cannot
    be written."""
    run = RunFolder(source)
    here = RunFolder(Path()).inspections / source.name
    folder = out or (run.inspections if run.config_file.exists() else here)
    stem = _stem(found)
    file = folder / f"{stem}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json.dumps(found.as_json(), indent=1) + "\n")
        if not routes(found):
            return Written(file, ())
        shown = folder / f"{stem}.html"
        write_atomically(shown, page(found))
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written ({error.strerror}); name another with --out"
        ) from None
    return Written(file, (shown,))


def _stem(found: Inspection) -> str:
    """A name from the text's: `held-out`, or the file's without what a path cannot hold."""
    if found.text.name.startswith("held-out"):
        return "held-out"
    return re.sub(r"[^\w.-]+", "-", Path(found.text.name).stem) or "text"


def drawn(file: Path) -> list[str]:
    """What `python -m analysis inspection` says that it drew. Raises UserError where it cannot."""
    command = [sys.executable, "-m", "analysis", "inspection", str(file)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        last = (ended.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise UserError(
            f"{file}: its figures are not drawn ({last.removeprefix('error: ')}); "
            "--no-draw leaves them out"
        )
    return ended.stdout.splitlines()

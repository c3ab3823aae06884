"""`mor-isoflop`: the demo from any folder, and a folder of one's own with sweep.py and conf/.

A wheel carries sweep.py and conf/ beside this file (`setup.py`); in a checkout they stand at its
top.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from ledger.errors import UserError

ENTRY = "sweep.py"
CONF = "conf"
HERE = Path(__file__).resolve().parent


def home() -> Path:
    """The folder that holds sweep.py and conf/: that of the wheel, else the top of the checkout."""
    return HERE if (HERE / CONF).is_dir() else HERE.parents[1]


def conf_folder() -> Path:
    """The settings that apply here: those of the present folder where `init` or a checkout put
    them, else those that were installed."""
    own = Path.cwd()
    if (own / ENTRY).is_file() and (own / CONF / "config.yaml").is_file():
        return own / CONF
    return home() / CONF


def write_starter(folder: Path) -> None:
    """Copy sweep.py and conf/ to `folder`. Raises UserError where it has either, or cannot be
    written; nothing is left half-copied."""
    for name in (ENTRY, CONF):
        if (folder / name).exists():
            raise UserError(
                f"{folder / name} is there already; choose another folder, "
                "or move it away to have a fresh one"
            )
    temporary = folder / f".{CONF}.new"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.copytree(home() / CONF, temporary, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copyfile(home() / ENTRY, folder / ENTRY)
        temporary.rename(folder / CONF)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise UserError(f"{folder}: cannot be written ({error.strerror}); choose another") from None

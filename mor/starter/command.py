"""The command line `mor-isoflop`."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from ledger.errors import UserError
from mor.starter import ENTRY, conf_folder, write_starter

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[SETTING=VALUE]...",
        help="Settings of sweep.py, such as size=9k,16k,32k budget=1e10,2e10,4e10.",
        show_default=False,
    ),
]
Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="Made where it is not there.")]


@app.callback()
def main() -> None:
    """Scaling studies of recursive and token-routed language models."""


@app.command(epilog="Exit codes: 0 done, 1 runs failed, 2 a mistake, 130 stopped.")
def demo(overrides: Overrides = None) -> None:
    """Train the demo's 45 small models in the present folder and write their report: minutes.

    Results go to runs/ and studies/quick/ here; typed again it goes on where it was. The same as
    sweep.py -m study=quick study.evaluate=corpus and python -m analysis report studies/quick.
    """
    own = conf_folder().parent
    given = list(overrides or ())
    name = next((v.partition("=")[2] for v in given if v.startswith("study.name=")), "quick")
    study = [str(own / ENTRY), "-m", "study=quick", "study.evaluate=corpus", *given]
    for arguments in (study, ["-m", "analysis", "report", f"studies/{name}"]):
        code = _run(arguments)
        if code:
            raise typer.Exit(code)


@app.command(epilog="Exit codes: 0 written, 2 the folder has them already or cannot be written.")
def init(folder: Folder = Path()) -> None:
    """Write sweep.py and conf/ into a folder of yours: settings, sizes and studies to edit."""
    try:
        write_starter(folder)
    except UserError as mistake:
        typer.echo(f"error: {mistake}", err=True)
        raise typer.Exit(2) from None
    there = "" if folder == Path() else f"cd {shlex.quote(str(folder))} && "
    typer.echo(f"{folder / ENTRY} and {folder / 'conf'} are written. Next:")
    typer.echo(f"    {there}python sweep.py -m study=quick launch=plan    # the demo, priced")
    typer.echo(f"    {there}python sweep.py -m budget=5e18 model=mor,vanilla launch=plan")


def _run(arguments: list[str]) -> int:
    """A command of ours with this Python; Ctrl-C is its own to answer."""
    process = subprocess.Popen([sys.executable, *arguments])
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue

"""The command line `mor-isoflop`."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from typer.core import TyperGroup

from ledger import interrupts
from ledger.errors import UserError
from ledger.usage import OneSentence
from mor.starter import ENTRY, conf_folder, write_starter

NAME = "mor-isoflop"  # of the command and of the distribution
ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # what asks a process to end
NO_REPORT = ("plan", "slurm")  # after these there are no results yet


class Group(OneSentence, TyperGroup):
    """The commands."""


app = typer.Typer(
    cls=Group,
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


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"{NAME} {metadata.version(NAME)}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True),
]


@app.callback()
def main(version: Version = False) -> None:
    """Scaling studies of recursive and token-routed language models."""


@app.command(epilog="Exit codes: 0 done, 1 runs failed, 2 a mistake, 130 stopped.")
def demo(overrides: Overrides = None) -> None:
    """Train the demo's 45 small models in the present folder and write their report: minutes.

    Results go to runs/ and studies/quick/ here; typed again it goes on where it was. The same as
    sweep.py -m study=quick study.evaluate=corpus and python -m analysis report studies/quick. With
    launch=plan or launch=slurm there is no report yet.
    """
    own = conf_folder().parent
    given = list(overrides or ())
    values = {key: value for key, _, value in (one.partition("=") for one in given)}
    commands = [[str(own / ENTRY), "-m", "study=quick", "study.evaluate=corpus", *given]]
    if values.get("launch.mode", values.get("launch")) not in NO_REPORT:
        study = Path(values.get("studies_dir", "studies")) / values.get("study.name", "quick")
        commands.append(["-m", "analysis", "report", str(study)])
    for arguments in commands:
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
    """A command of ours with this Python. What asks this process to end is passed on to it, once:
    it is in a process group of its own, which a terminal's Ctrl-C does not reach."""
    told: list[int] = []
    started: list[subprocess.Popen[bytes]] = []

    def end(number: int, _: FrameType | None) -> None:
        told.append(number)
        for process in started:
            process.send_signal(number)

    def pause(*_: object) -> None:  # Ctrl-Z, until this process goes on
        for process in started:
            os.killpg(process.pid, signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
        for process in started:
            os.killpg(process.pid, signal.SIGCONT)

    answers = dict.fromkeys(ENDS, end) | {signal.SIGTSTP: pause}
    heard = [name for name in answers if signal.getsignal(name) != signal.SIG_IGN]
    before = {name: signal.signal(name, answers[name]) for name in heard}
    try:
        process = subprocess.Popen([sys.executable, *arguments], process_group=0)
        early = [*told]
        started.append(process)
        for number in early:
            process.send_signal(number)
        code = process.wait()
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
    if told:
        return interrupts.CODE
    return code if code >= 0 else 128 - code  # ended by a signal, as a shell has it

"""The command line: `python -m analysis isoflop POINTS` and its neighbours.

A sub-command is a module of `analysis.commands` with a `command` and an `EPILOG`; a new one is a
new module and a line here. Heavy imports (NumPy, pandas, matplotlib) stand inside the commands:
`--help` should not wait for them.
"""

import shlex
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from analysis.commands import (
    agree,
    compare,
    design,
    envelope,
    figures,
    fit,
    forecast,
    inspection,
    isoflop,
    joint,
    report,
    score,
    suggest,
    tune,
    wandb_report,
)
from ledger.usage import OneSentence

COMMANDS = {
    "isoflop": isoflop,
    "report": report,
    "wandb-report": wandb_report,
    "fit": fit,
    "joint": joint,
    "envelope": envelope,
    "compare": compare,
    "agree": agree,
    "figures": figures,
    "inspection": inspection,
    "design": design,
    "suggest": suggest,
    "tune": tune,
    "forecast": forecast,
    "score": score,
}


class Group(OneSentence, TyperGroup):
    """The commands; a second study is answered with how two are compared."""

    def twice(self, ctx: Any, option: str, last: str) -> str:
        said = super().twice(ctx, option, last)
        return f"{said}; {_two_studies(ctx)}" if option == "--study" else said

    def too_many(self, ctx: Any, given: dict[str, Any], more: list[str]) -> str:
        if not any(one.name == "points" for one in ctx.command.params):
            return super().too_many(ctx, given, more)
        if given.get("columns") and (stray := _of_columns([str(given["points"]), *more])):
            whole = "".join([given["columns"].rstrip(", "), *stray])
            return (
                f"{''.join(stray).strip(', ')}: --columns takes one text; join what belongs to it "
                f"with commas: type --columns {shlex.quote(whole)}"
            )
        return f"{' '.join(more)}: {ctx.info_name} takes one POINTS; {_two_studies(ctx)}"


def _of_columns(words: list[str]) -> list[str]:
    """Words that are a part of --columns rather than points, each as it goes on there: a pair after
    a comma, the rest of a name after a blank."""
    paths = [
        Path(word).exists() or ("=" not in word and ("/" in word or "." in word)) for word in words
    ]
    strange = [word for word, is_path in zip(words, paths, strict=True) if not is_path]
    return [("," if "=" in word else " ") + word.strip(",") for word in strange]


def _two_studies(ctx: Any) -> str:
    return (
        "two studies are compared where both are launched under one study.name, or all runs of "
        f"their store with {ctx.command_path} runs (docs/tutorial.md, section 6)"
    )


app = typer.Typer(
    cls=Group,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


@app.callback()
def main() -> None:
    """Fit scaling studies and draw them: tables in, exponents and figures out."""


for _name, _module in COMMANDS.items():
    app.command(_name, epilog=_module.EPILOG)(_module.command)

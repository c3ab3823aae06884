"""The command line: `python -m analysis isoflop POINTS` and its neighbours.

A sub-command is a module of `analysis.commands` with a `command` and an `EPILOG`; a new one is a
new module and a line here. Heavy imports (NumPy, pandas, matplotlib) stand inside the commands:
`--help` should not wait for them.
"""

import typer

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

app = typer.Typer(
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

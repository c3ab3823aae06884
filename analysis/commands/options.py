"""Options that several sub-commands share, each with one name and one meaning."""

from pathlib import Path
from typing import Annotated, Literal

import typer

Points = Annotated[
    Path,
    typer.Argument(
        metavar="POINTS",
        help="A CSV file, a run store (runs/) or a study folder (studies/<name>/).",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON only.")]
Bootstrap = Annotated[
    int, typer.Option(min=0, metavar="N", help="Resamples behind the 95 % intervals; 0 for none.")
]
Seed = Annotated[int, typer.Option(min=0, metavar="N", help="Seed of the resampling.")]
StudyName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="With a run store: only the runs of studies/NAME, beside it.",
        show_default=False,
    ),
]
Loss = Annotated[
    Literal["causal", "topk"],
    typer.Option(
        help="With a run store: the validation loss to fit. topk routes as in training and sees "
        "later tokens; causal is what a deployed model gets."
    ),
]
Params = Annotated[
    Literal["nonembedding", "total"],
    typer.Option(help="With a run store: which parameters count; a shared weight counts once."),
]
AllowMixed = Annotated[
    bool,
    typer.Option(
        "--allow-mixed", help="Fit points of several FLOP conventions or corpora together."
    ),
]
Columns = Annotated[
    str | None,
    typer.Option(
        metavar="OURS=THEIRS,...",
        help="With a CSV: what it calls our columns, as in params=N,tokens=D.",
        show_default=False,
    ),
]
Delta = Annotated[
    float,
    typer.Option(
        min=1e-12,
        metavar="D",
        help="Where Huber turns from squares to absolute values, in log loss.",
    ),
]
Starts = Annotated[
    int,
    typer.Option(
        min=1,
        metavar="N",
        help="Starts that are scored; 4500 is the published grid, any other number is drawn.",
    ),
]
Resample = Annotated[
    Literal["auto", "rows", "budgets", "trunks", "seeds"],
    typer.Option(
        help="What is drawn again for the intervals. Points that share a training trunk are "
        "dependent, so auto draws trunks where points share one, otherwise rows."
    ),
]

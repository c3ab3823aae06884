"""Options that several sub-commands share, each with one name, one default and one meaning.

A command takes whole groups of them: `command(chosen: Chosen, ...)` under `@flat` has every field
of `Chosen` as an option of its own on the command line.
"""

import dataclasses
import functools
import inspect
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ledger.plan_file import StudyFolder

if TYPE_CHECKING:
    from analysis.fits.parametric.lawfit import Asked
    from analysis.points.table import PointSet


def as_study(given: Path | None) -> Path | None:
    """`quick` as studies/quick, where a study has that name and nothing else has that path."""
    if given is None or given.exists() or given.is_absolute():
        return given
    folder = Path("studies") / given
    return folder if StudyFolder(folder).plan_file.is_file() else given


Points = Annotated[
    Path,
    typer.Argument(
        metavar="POINTS",
        callback=as_study,
        help="A CSV file, a run store (runs/), a study (its name or folder), or W&B: "
        "wandb://entity/project\\[/group], or a folder of offline runs.",
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
AnyLoss = Annotated[
    Literal["causal", "topk", "bpb", "bpb_topk"],
    typer.Option(
        help="With a run store: the validation loss to fit, in nats per token, or in bits per byte "
        "(bpb, bpb_topk), which compares tokenizers. topk routes as in training and sees later "
        "tokens; causal and bpb are what a deployed model gets."
    ),
]
Params = Annotated[
    Literal["nonembedding", "total"],
    typer.Option(help="With a run store: which parameters count; a shared weight counts once."),
]
AllowMixed = Annotated[
    bool,
    typer.Option(
        "--allow-mixed",
        help="Fit points of several FLOP conventions, corpora or versions of the code together.",
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
Window = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="K",
        help="Fit each parabola to the lowest size and the K nearest on either side. Default: all "
        "of 7 sizes or fewer, of more those within a factor of 2 of the lowest, 3 on either side "
        "at least.",
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
Objective = Annotated[
    Literal["log", "raw"],
    typer.Option(
        help="What is minimised. log: Huber's loss of the log residuals, as published. raw: "
        "squares of the loss itself, as variable projection does; large losses weigh more."
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
Out = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Draw the fit too: figures as PNG, SVG and PDF go here, each with its data as CSV.",
        show_default=False,
    ),
]


RecipeFile = Annotated[
    Path | None,
    typer.Option(
        "--recipe",
        metavar="FILE",
        help="Judge how far each run is from the best learning rate and batch by this file of "
        "python -m analysis tune. Default: the recipe that the run followed, if it is one.",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class Chosen:
    """Which points, and which of their numbers."""

    points: Points
    columns: Columns = None
    study: StudyName = None
    loss: Loss = "causal"
    params: Params = "nonembedding"
    allow_mixed: AllowMixed = False

    def typed(self) -> str:
        """The same points and options for another command."""
        words = [str(self.points)]
        for option in dataclasses.fields(self)[1:]:
            value, name = getattr(self, option.name), f"--{option.name.replace('_', '-')}"
            if value != option.default:
                words += [name] if value is True else [name, str(value)]
        return shlex.join(words)

    def load(
        self, numbers: tuple[str, ...] | None = None, names: tuple[str, ...] = ()
    ) -> "PointSet":
        """The points, with the `numbers` and `names` that a fit wants of each. Raises AnalysisError
        where they cannot be used."""
        from analysis.commands.talk import parse_columns
        from analysis.points.load import load_points
        from analysis.points.table import NUMBERS, Wanted

        return load_points(
            self.points,
            loss=self.loss,
            params=self.params,
            study=self.study,
            allow_mixed=self.allow_mixed,
            wanted=Wanted(numbers or NUMBERS, names, parse_columns(self.columns)),
        )


@dataclass(frozen=True)
class ChosenInAnyUnit(Chosen):
    """The same for commands that print the unit of the losses."""

    loss: AnyLoss = "causal"  # type: ignore[assignment]


@dataclass(frozen=True)
class Resampling:
    """How wide the intervals are found."""

    bootstrap: Bootstrap = 1000
    seed: Seed = 0


@dataclass(frozen=True)
class Solving:
    """How a parametric law is fitted."""

    delta: Delta = 1e-3
    starts: Starts = 4500
    resample: Resample = "auto"
    objective: Objective = "log"

    def asked(self, resampling: Resampling) -> "Asked":
        """The same as the fit takes it. Raises AnalysisError where an option has no effect."""
        from analysis.errors import AnalysisError
        from analysis.fits.parametric.lawfit import Asked

        raw = self.objective == "raw"
        if raw and self.delta != Solving.delta:
            raise AnalysisError(
                f"--delta {self.delta:g} is Huber's and --objective raw has squares: leave --delta "
                "out, or --objective."
            )
        drawn = resampling.bootstrap, self.resample, resampling.seed
        return Asked(self.delta, self.starts, *drawn, raw)


def draw_into(out: Path | None, draw: Callable[[Path], list[Any]]) -> list[Path]:
    """Call `draw` on the folder of --out, made first; the SVG of each figure that it returns."""
    if out is None:
        return []
    from analysis.files import make_folder

    make_folder(out)
    return [out / figure.name("svg") for figure in draw(out)]


def flat(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command one option for each field of the groups among its parameters."""
    parameters = inspect.signature(command).parameters
    groups: dict[str, Any] = {
        name: parameter.annotation
        for name, parameter in parameters.items()
        if dataclasses.is_dataclass(parameter.annotation)
    }

    @functools.wraps(command)
    def spread(**given: Any) -> None:
        for name, group in groups.items():
            fields = [field.name for field in dataclasses.fields(group)]
            given[name] = group(**{field: given.pop(field) for field in fields})
        command(**given)

    options = [
        option
        for name, parameter in parameters.items()
        for option in (_options_of(groups[name]) if name in groups else [parameter])
    ]
    options = [option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in options]
    spread.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    spread.__annotations__ = {option.name: option.annotation for option in options}
    return spread


def _options_of(group: Any) -> list[inspect.Parameter]:
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty
            if field.default is dataclasses.MISSING
            else field.default,
            annotation=field.type,
        )
        for field in dataclasses.fields(group)
    ]

"""A parametric law (approach 3) and its points: predictions, profiles, and the law as a map."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.contour import ContourSet
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from analysis.figures import style
from analysis.fits.parametric.lawfit import Report
from analysis.fits.parametric.laws import Chinchilla
from analysis.fits.parametric.optimum import LawFit
from analysis.fits.parametric.solver import polish
from analysis.formatting import count
from analysis.points.table import curve_of

PROFILE_POINTS = 61
PROFILE_REACH = 1.5  # interval widths on either side; without an interval, of the value itself
TOP = 4.0  # times the lowest objective: where a profile leaves the panel
LEVELS = 12
LABEL = np.array([0.08, 0.07])  # half of a label with room around it, in shares of a panel
# Without its light end, which paper does not show.
PRINTED = LinearSegmentedColormap.from_list(
    "printed", colormaps["cividis"](np.linspace(0, 0.6, 64))
)


def draw_all(
    reports: Mapping[str, Report], tables: Mapping[str, pd.DataFrame], folder: Path
) -> list[style.SavedFigure]:
    """Every figure of some fits and the points of each; the map only for laws of N and D."""
    figures = [
        draw_predictions(reports, tables, folder, "law_predictions"),
        draw_profiles(reports, folder, "law_profiles"),
    ]
    plane = [isinstance(done.fit.problem.law, Chinchilla) for done in reports.values()]
    return (
        [*figures, draw_contours(reports, tables, folder, "law_contours")]
        if all(plane)
        else figures
    )


def draw_predictions(
    reports: Mapping[str, Report], tables: Mapping[str, pd.DataFrame], folder: Path, stem: str
) -> style.SavedFigure:
    """Measured against predicted loss, and residuals; `tables` has the points of each report."""
    parts = [prediction_data(done, curve_of(tables[name])) for name, done in reports.items()]
    data = pd.concat(parts, ignore_index=True)
    names = style.ordered(list(dict.fromkeys(data["model"])))
    colours = style.colours_of(names)
    with style.publication_style():
        figure, (above, below) = style.stacked(2, 1.7, 0.24)
        handles = []
        for name, marker in zip(names, style.MARKERS * len(names), strict=False):
            rows = data[data["model"] == name]
            for axes, heights in ((above, rows["measured"]), (below, 100 * rows["residual"])):
                axes.plot(rows["predicted"], heights, marker, color=colours[name], markersize=3.5)
            handles.append(
                Line2D([], [], color=colours[name], marker=marker, linestyle="none", label=name)
            )
        both = data[["measured", "predicted"]].to_numpy()
        ends = [both.min(), both.max()]
        above.plot(ends, ends, color=style.MUTED, linewidth=0.8, zorder=1)
        below.axhline(0, color=style.MUTED, linewidth=0.8, zorder=1)
        above.set_ylabel("Measured loss\n(nats per token)")
        below.set_ylabel("Measured over\npredicted (%)")
        below.set_xlabel("Predicted loss (nats per token)")
        figure.legend(handles=handles, loc="lower center", ncols=min(len(handles), 4))
        style.save(figure, data, folder, stem)
    worst = max(data["residual"], key=abs)
    spread = float(np.sqrt(np.mean(data["residual"] ** 2)))
    return style.SavedFigure(
        stem,
        "Measured against predicted",
        alt=f"Measured against predicted loss of {len(data)} points: {spread:.2%} rms, the "
        f"farthest {worst:+.2%}.",
        caption="Each point against the fitted law; below, by how much it lies above the law.",
        width=style.COLUMN_WIDTH,
    )


def prediction_data(done: Report, model: pd.Series) -> pd.DataFrame:
    """Measured and predicted loss (nats per token) and residual (share of the prediction)."""
    measured = np.exp(done.fit.problem.log_loss)
    residual = np.expm1(done.fit.residuals)
    predicted = measured / (1 + residual)
    return pd.DataFrame(
        {
            "model": model.to_numpy(),
            "measured": measured,
            "predicted": predicted,
            "residual": residual,
        }
    )


def profile(fit: LawFit, name: str, values: np.ndarray) -> np.ndarray:
    """The objective with one parameter held at each of `values` (rising, the optimum in the
    middle), minimised over all others.

    Walks outwards from the optimum, each fit starting where its neighbour ended: from the optimum
    itself a far value starts in another valley.
    """
    column, middle = fit.problem.law.parameters.index(name), len(values) // 2
    sides = [values[middle::-1], values[middle:]]
    found = []
    for side in sides:
        theta, objective = fit.theta[None].copy(), []
        for value in side:
            _shift(theta, column, value - theta[0, column], fit)
            ended = polish(fit.problem, theta, steps=200, held=column)
            theta = ended.theta
            objective.append(ended.objective[0])
        found.append(np.array(objective))
    return np.concatenate([found[0][:0:-1], found[1]])


def _shift(theta: np.ndarray, column: int, step: float, fit: LawFit) -> None:
    """Move an exponent and its coefficient together, so that the term stays as large as it was."""
    law = fit.problem.law
    theta[:, column] += step
    centres = law.term_centres(theta)
    for term in law.terms:
        if term.exponent == law.parameters[column] and term.exponent in centres:
            coefficient = law.parameters.index(term.coefficient)
            theta[:, coefficient] += step * centres[term.exponent]


def draw_profiles(reports: Mapping[str, Report], folder: Path, stem: str) -> style.SavedFigure:
    """Objective over its minimum along alpha and beta (and phi), all other parameters refitted."""
    data = pd.concat([profile_data(n, done) for n, done in reports.items()], ignore_index=True)
    shown = list(dict.fromkeys(data["parameter"]))
    names = style.ordered(list(reports))
    colours = style.colours_of(names)
    with style.publication_style():
        figure, panels = style.stacked(len(shown), 1.35, 0.3)
        for axes, parameter in zip(panels, shown, strict=True):
            for name in names:
                rows = data[(data["model"] == name) & (data["parameter"] == parameter)]
                axes.plot(rows["value"], rows["ratio"], color=colours[name], linewidth=1.2)
                best = reports[name].fit.values[parameter]
                axes.plot(best, 1, marker="o", color=colours[name], markersize=4)
                ends = reports[name].intervals.of[parameter]
                if ends is not None:
                    height = 0.93 - 0.06 * names.index(name)
                    axes.plot(ends, [height, height], color=colours[name], linewidth=2.5, alpha=0.5)
            seen = data[(data["parameter"] == parameter) & (data["ratio"] <= TOP)]["value"]
            axes.set_xlim(seen.min(), seen.max())
            axes.set_ylim(0.9 - 0.06 * len(names), TOP)
            axes.set_xlabel(parameter)
            axes.set_ylabel("Objective\nover its minimum")
            axes.xaxis.set_major_locator(MaxNLocator(6))
        handles = [Line2D([], [], color=colours[n], label=n or "all models") for n in names]
        figure.legend(handles=handles, loc="lower center", ncols=min(len(handles), 4))
        style.save(figure, data, folder, stem)
    return style.SavedFigure(
        stem,
        "Profiles of the objective",
        alt=f"Objective over its minimum along {', '.join(shown)}, the other parameters refitted.",
        caption="How much worse the fit gets as one parameter is held away from its optimum and "
        "all others are fitted again. Bars: 95 % intervals. A flat profile is a parameter that "
        "the points do not hold.",
        width=style.COLUMN_WIDTH,
    )


def profile_data(model: str, done: Report) -> pd.DataFrame:
    """Rows of (model, parameter, value, ratio), ratio the objective over its minimum."""
    parts = []
    lowest = max(done.fit.certificate.objective, 1e-300)
    law = done.fit.problem.law
    for name in (n for n in law.parameters if n not in law.in_logs):
        best, ends = done.fit.values[name], done.intervals.of[name]
        width = ends[1] - ends[0] if ends else abs(best)
        values = best + PROFILE_REACH * width * np.linspace(-1, 1, PROFILE_POINTS)
        ratio = profile(done.fit, name, values) / lowest
        parts.append(
            pd.DataFrame({"model": model, "parameter": name, "value": values, "ratio": ratio})
        )
    return pd.concat(parts, ignore_index=True)


def draw_contours(
    reports: Mapping[str, Report], tables: Mapping[str, pd.DataFrame], folder: Path, stem: str
) -> style.SavedFigure:
    """The law over sizes and tokens, the points, and the efficient frontier: a panel per model."""
    names = style.ordered(list(reports))
    with style.publication_style():
        figure, panels = style.stacked(len(names), 2.2, 0.26)
        parts = []
        for axes, name in zip(panels, names, strict=True):
            table, fit = tables[name], reports[name].fit
            sizes, tokens = (
                np.geomspace(*style.widened(table[c].min(), table[c].max(), 0.12), 80)
                for c in ("params", "tokens")
            )
            across, up = np.meshgrid(sizes, tokens)
            flat = Chinchilla(np.log(across.ravel()), np.log(up.ravel()))
            loss = np.exp(flat.log_loss(fit.theta[None])[0]).reshape(across.shape)
            axes.set_yscale("log")
            axes.set_ylim(tokens[0], tokens[-1])
            ticks = style.round_ticks(sizes[0], sizes[-1], most=5)
            style.log_axis(axes, sizes[0], sizes[-1], 0.0, ticks, count)
            drawn = axes.contour(sizes, tokens, loss, LEVELS, cmap=PRINTED, linewidths=0.7)
            path = frontier(fit, sizes)
            taken = pd.concat([table[["params", "tokens"]], path[["params", "tokens"]]])
            _label(axes, drawn, taken.to_numpy(float))
            axes.plot(path["params"], path["tokens"], color=style.INK, linestyle=style.DASHED)
            colour = style.colours_of(names)[name]
            axes.plot(table["params"], table["tokens"], "o", color=colour, markersize=3.5)
            heights = style.round_ticks(tokens[0], tokens[-1], most=5)
            axes.set_yticks(heights, [count(height) for height in heights])
            axes.minorticks_off()
            axes.set_title(name, loc="left")
            axes.set_ylabel("Tokens")
            parts.append(path.assign(model=name, kind="frontier"))
            points = table[["params", "tokens", "loss"]].assign(model=name, kind="point")
            parts.append(points)
        panels[-1].set_xlabel("Parameters")
        dashed = Line2D([], [], color=style.INK, linestyle=style.DASHED, label="efficient frontier")
        dots = Line2D([], [], color=style.MUTED, marker="o", linestyle="none", label="runs")
        figure.legend(handles=[dashed, dots], loc="lower center", ncols=2)
        style.save(figure, pd.concat(parts, ignore_index=True), folder, stem)
    return style.SavedFigure(
        stem,
        "The fitted law",
        alt=f"Contours of the fitted loss over parameters and tokens for {', '.join(names)}, with "
        "the runs and the efficient frontier.",
        caption="Contours: fitted loss (nats per token). Dashed: the sizes and tokens of lowest "
        "loss at each compute, where compute is proportional to parameters times tokens.",
        width=style.COLUMN_WIDTH,
    )


def _label(axes: Axes, drawn: ContourSet, taken: np.ndarray) -> None:
    """The loss on every other line, away from what is drawn at `taken` (rows of x, y)."""
    window = np.log([axes.get_xlim(), axes.get_ylim()])

    def in_panel(points: np.ndarray) -> np.ndarray:
        return (np.log(points) - window[:, 0]) / (window[:, 1] - window[:, 0])

    lines = {
        level: np.concatenate(parts)
        for level, parts in list(zip(drawn.levels, drawn.allsegs, strict=True))[::2]
        if sum(map(len, parts))
    }
    places = label_places([in_panel(line) for line in lines.values()], in_panel(taken))
    at = {level: lines[level][i] for level, i in zip(lines, places, strict=True) if i is not None}
    texts = axes.clabel(
        drawn, list(at), fontsize=6.5, fmt="%.3g", colors=style.INK, manual=list(at.values())
    )
    for text in texts:
        text.set_path_effects([withStroke(linewidth=1.5, foreground="white")])


def label_places(lines: list[np.ndarray], taken: np.ndarray) -> list[int | None]:
    """Of each line the point that is farthest from what is drawn at `taken`, from other labels and
    from the edges; None where no point has room. All in shares of the panel."""
    found: list[int | None] = []
    taken = taken[np.isfinite(taken).all(axis=1)]
    for line in lines:
        apart = (line[:, None] - taken[None]) / LABEL
        room = np.minimum(
            np.linalg.norm(apart, axis=2).min(axis=1),
            (np.minimum(line, 1 - line) / LABEL).min(axis=1),
        )
        best = int(np.argmax(room))
        found.append(best if room[best] >= 1 else None)
        if room[best] >= 1:
            taken = np.vstack([taken, line[best]])
    return found


def frontier(fit: LawFit, sizes: np.ndarray) -> pd.DataFrame:
    """Tokens at which a size is compute-optimal: alpha A N^-alpha = beta B D^-beta (Hoffmann et al.
    2022, equation 4), whatever constant stands between compute and N D."""
    values = fit.values
    a, b = values["alpha"], values["beta"]
    # A term that has gone to zero leaves no frontier: nothing is drawn where it would be.
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        log_tokens = (np.log(b * values["B"]) - np.log(a * values["A"]) + a * np.log(sizes)) / b
        tokens = np.exp(log_tokens)
    law = Chinchilla(np.log(sizes), log_tokens)
    loss = np.exp(law.log_loss(fit.theta[None])[0])
    return pd.DataFrame({"params": sizes, "tokens": tokens, "loss": loss})

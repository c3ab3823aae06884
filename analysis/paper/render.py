"""A table as CSV (numbers), Markdown and LaTeX (as they are read)."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from analysis.files import as_csv, write_whole
from analysis.paper.tables import NONE, PAPER_MARK, Column, Table

BESIDE = (
    "Losses are nats per token of each side's own corpus and tokenizer: compare the order of the "
    "variants, never the values."
)


@dataclass(frozen=True)
class SavedTable:
    """A table on disk: `<name>.csv`, `.md` and `.tex` in one folder; `cells` as they are read."""

    name: str
    title: str
    caption: str
    header: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]


def save_table(
    table: Table, runs: pd.DataFrame | None, with_published: bool, folder: Path, source: str
) -> SavedTable:
    """Write the rows of runs, the published ones, or one beside the other where both are there."""
    published = table.published_rows() if with_published else None
    data: pd.DataFrame | None
    if runs is not None and published is not None:
        columns, data = _beside(table, runs, published)
    else:
        data = published if runs is None else runs
        assert data is not None, "a table needs rows of runs or of the paper"
        # A column that no row fills, few-shot accuracy of runs for one, is left out.
        columns = [c for c in table.columns if not c.measured or c.is_loss or _filled(data[c.key])]
        data = data[[c.key for c in columns]]
    cells = tuple(
        tuple(column.text(row[column.key]) for column in columns) for row in data.to_dict("records")
    )
    caution = BESIDE if runs is not None and with_published else ""
    caption = " ".join(part for part in (f"{source}.", table.note, caution) if part)
    header = tuple(column.title for column in columns)
    saved = SavedTable(table.name, table.title, caption, header, cells)
    write_whole(folder / f"{table.name}.csv", as_csv(data))
    write_whole(folder / f"{table.name}.md", markdown(saved))
    write_whole(folder / f"{table.name}.tex", latex(saved))
    return saved


def _filled(values: pd.Series) -> bool:
    return bool((values.notna() & (values != "") & (values != NONE)).any())


def _beside(
    table: Table, runs: pd.DataFrame, published: pd.DataFrame
) -> tuple[list[Column], pd.DataFrame]:
    """Rows of the same variant on one line: what it is, what the runs gave, what was printed.

    Sizes and tokens differ between scales, so they are the runs' own; a published variant without
    a run keeps the printed ones.
    """
    # A variant that stands twice (two budgets) is matched in order: the first with the first.
    sides = [
        side.assign(nth=side.groupby(table.keys, sort=False).cumcount())
        for side in (runs, published)
    ]
    both = sides[0].merge(
        sides[1], how="outer", on=[*table.keys, "nth"], suffixes=("", PAPER_MARK), sort=False
    )
    order = {tuple(row): i for i, row in enumerate(sides[1][[*table.keys, "nth"]].to_numpy())}
    rank = [order.get(tuple(row), len(order)) for row in both[[*table.keys, "nth"]].to_numpy()]
    both = both.assign(rank=rank).sort_values("rank", kind="stable")
    own = {tuple(row) for row in sides[0][[*table.keys, "nth"]].to_numpy()}
    no_run = [tuple(row) not in own for row in both[[*table.keys, "nth"]].to_numpy()]
    no_print = [place == len(order) for place in sorted(rank)]
    columns: list[Column] = []
    for column in table.columns:
        printed = f"{column.key}{PAPER_MARK}"
        if column.key in table.keys:
            columns.append(column)
        elif not column.measured:
            both[column.key] = both[column.key].where(both[column.key].notna(), both[printed])
            columns.append(column)
        else:
            if column.is_loss or _filled(runs[column.key]):
                columns.append(column)
                # No run of that variant is not a run without a number.
                both[column.key] = both[column.key].astype(object)
                both.loc[no_run, column.key] = None
            if _filled(published[column.key]):
                both[printed] = both[printed].astype(object)
                both.loc[no_print, printed] = None
                columns.append(Column(printed, f"{column.title}{PAPER_MARK}", column.form))
    return columns, both[[c.key for c in columns]].reset_index(drop=True)


def markdown(table: SavedTable) -> str:
    """A pipe table under its title."""
    lines = [table.header, tuple("---" for _ in table.header), *table.cells]
    rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    return "\n".join([f"**{table.title}.** {table.caption}", "", *rows, ""])


def latex(table: SavedTable) -> str:
    """A booktabs table, ready for \\input."""
    frame = pd.DataFrame([list(row) for row in table.cells], columns=list(table.header))
    numeric = [
        all(_is_number(row[i]) for row in table.cells if row[i] != NONE)
        for i in range(len(table.header))
    ]
    body = frame.to_latex(
        index=False,
        escape=True,
        caption=f"{_escaped(table.title)}. {_escaped(table.caption)}",
        label=f"tab:{table.name.removeprefix('table_')}",
        position="t",
        column_format="".join("r" if number else "l" for number in numeric),
    )
    return str(body)


def _escaped(text: str) -> str:
    for plain in ("%", "_", "&", "#"):
        text = text.replace(plain, f"\\{plain}")
    return text


def _is_number(text: str) -> bool:
    return text.rstrip("KMBT").replace(".", "", 1).lstrip("-").isdigit() or text == "nan"

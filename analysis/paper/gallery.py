"""Draw the entries that are asked for, and one page over them."""

from dataclasses import replace
from pathlib import Path

from analysis.files import make_folder, write_whole
from analysis.paper.catalogue import Entry, Material, Outcome
from analysis.report.pages import environment

Drawn = list[tuple[Entry, Outcome]]


def draw_entries(entries: list[Entry], material: Material, also_published: bool) -> Drawn:
    """Draw each entry. Without `also_published` only those that the runs feed keep the paper's
    numbers beside them, and the others are left out."""
    make_folder(material.folder)
    material = replace(material, only_beside=not also_published)
    return [(entry, entry.draw(material, entry.name)) for entry in entries]


def write_gallery(drawn: Drawn, folder: Path, command: str) -> Path:
    """`index.html` in `folder`: every figure and table with its files, and what is missing."""
    page = folder / "index.html"
    html = environment().get_template("figures.html.j2").render(shown=drawn, command=command)
    write_whole(page, html)
    return page

"""A text with the depth of each token, as one HTML file without scripts (paper figure 1, right)."""

from __future__ import annotations

import html
from collections import Counter

from mor.evaluate.inspection import Inspection

PALE, DARK = (230, 245, 240), (0, 84, 61)
STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 50rem; margin: 1rem auto; padding: 0 1rem;
  color: #1b1b1b; background: #fff; }
h1 { font-size: 1.25rem; overflow-wrap: anywhere; }
table { border-collapse: collapse; margin: 0.5rem 0 1rem; }
th, td { text-align: right; padding: 0.15rem 0.6rem; border-bottom: 1px solid #ddd; }
th:first-child { text-align: left; }
pre { font: 0.9rem/1.6 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; }
pre span { border-radius: 2px; }
.key span { padding: 0.1rem 0.6rem; margin-right: 0.3rem; border-radius: 2px; }
p.quiet { color: #555; }
"""


def page(found: Inspection) -> str:
    """The whole file. Texts are escaped: nothing of a corpus is markup."""
    depths = range(1, max(found.n_blocks, *found.depths.depth) + 1)
    rules = "".join(f".d{d} {{ {_colours(d, len(depths))} }}\n" for d in depths)
    title = html.escape(f"{found.source} on {found.text.name}")
    shown = len(found.depths.text)
    cut = f", of which the first {shown:,} are shown" if shown < found.text.tokens else ""
    spans = "".join(
        f'<span class="d{depth}" title="depth {depth}">{html.escape(_visible(text))}</span>'
        for text, depth in zip(found.depths.text, found.depths.depth, strict=True)
    )
    key = "".join(f'<span class="d{d}">{d}</span>' for d in depths)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{STYLE}{rules}</style>\n</head>\n<body>\n"
        f"<h1>{title}</h1>\n"
        f"<p>{found.text.tokens:,} tokens{cut}; rows of {found.text.batches.seq_len} tokens, "
        "routed as at inference.</p>\n"
        f'<p class="key">Depth, in blocks that a token took: {key}</p>\n'
        f"{_shares(found)}<pre>{spans}</pre>\n"
        f'<p class="quiet">Checkpoint {html.escape(found.measured[-1].checkpoint)}.</p>\n'
        "</body>\n</html>\n"
    )


def _shares(found: Inspection) -> str:
    counts = Counter(found.depths.depth)
    total = sum(counts.values())
    rows = "".join(
        f'<tr><th scope="row">{depth}</th><td>{count:,}</td>'
        f"<td>{100 * count / total:.1f} %</td></tr>"
        for depth, count in sorted(counts.items())
    )
    head = (
        '<tr><th scope="col">Depth</th><th scope="col">Tokens</th><th scope="col">Share</th></tr>'
    )
    return f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>\n"


def _visible(text: str) -> str:
    """A line break is shown and kept; what a browser would drop is a dot."""
    if not text:
        return "∅"
    return "".join("↵\n" if c == "\n" else c if c.isprintable() or c == "\t" else "·" for c in text)


def _colours(depth: int, number: int) -> str:
    share = (depth - 1) / max(1, number - 1)
    ground = [round(a + share * (b - a)) for a, b in zip(PALE, DARK, strict=True)]
    ink = "#fff" if _luminance(ground) < 0.18 else "#1b1b1b"
    return f"background: rgb({ground[0]}, {ground[1]}, {ground[2]}); color: {ink};"


def _luminance(colour: list[int]) -> float:
    """Relative luminance (WCAG 2)."""
    values = [c / 255 for c in colour]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in values]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

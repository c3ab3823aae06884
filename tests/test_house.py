"""The house rules that a linter does not know: who may compare a component's name, how long a
module may be, which words the code avoids."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("ledger", "mor", "sweeps", "analysis", "hydra_plugins", "benchmarks")
COMPONENTS = tuple(f"mor/model/{name}" for name in ("sharing.py", "kv/", "routers/", "relaxation/"))
COMPONENTS += ("mor/model/recurrence/", "mor/optim/")
# names that stand for a component and nothing else ("none", "random", "recursion" mean more)
NAMES = {
    *("expert", "token", "mod", "aux_loss", "aux_router", "loss_free", "wide_mlp"),
    *("vanilla", "recursive", "mor", "looped"),
    *("shared", "hybrid", "cycle", "sequence", "middle_cycle", "middle_sequence"),
    *("encoding", "scaling", "lora", "dora", "adamw", "muon"),
}
LONGEST = 400  # lines of a module
AVOIDED = (
    r"Notable about it",
    r"\bthe way out\b",
    r"\bdied without a word\b",
    r"\bits ghost\b",
    r"\bmend(s|ed)?\b",
    r"\bhangs? on\b",
    r"\b(nobody|somebody|whoever|anew)\b",
    r"\b(died|dies)\b",
    r"\bis no (parabola|tensor|text|forecast|inspection|part of the model)\b",
)


def sources() -> list[Path]:
    found = [path for name in PACKAGES for path in sorted((ROOT / name).rglob("*.py"))]
    return [*found, ROOT / "sweep.py"]


def comparisons(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of each component's name that is compared, or asked for its ending."""
    for node in ast.walk(tree):
        asked: list[ast.expr] = []
        if isinstance(node, ast.Compare):
            asked = [node.left, *node.comparators]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr in ("startswith", "endswith"):
                asked = list(node.args)
        elif isinstance(node, ast.MatchValue):
            asked = [node.value]
        for expression in asked:
            group = isinstance(expression, ast.Tuple | ast.List | ast.Set)
            for one in expression.elts if group else [expression]:
                if isinstance(one, ast.Constant) and one.value in NAMES:
                    yield one.lineno, str(one.value)


def test_only_components_compare_their_names() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in sources()
        if not str(path.relative_to(ROOT)).startswith(COMPONENTS)
        for line, name in comparisons(ast.parse(path.read_text()))
    ]
    assert not found, "ask the component's spec (mor/model/components.py): " + "; ".join(found)


def test_a_planted_comparison_is_found() -> None:
    planted = (
        "if model.router.type == 'expert' or kv in ('x', 'hybrid') or s.endswith('sequence'): 0"
    )
    assert [name for _, name in comparisons(ast.parse(planted))] == ["expert", "hybrid", "sequence"]
    assert not list(comparisons(ast.parse("x = {'expert': 1}['expert']")))


def test_no_module_is_too_long() -> None:
    tests = sorted((ROOT / "tests").rglob("*.py"))
    lengths = {path: len(path.read_text().splitlines()) for path in [*sources(), *tests]}
    assert not {str(path): n for path, n in lengths.items() if n > LONGEST}


def test_the_words_that_we_avoid_are_avoided() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in [*sources(), ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
        for pattern in AVOIDED
        for match in re.finditer(pattern, path.read_text())
    ]
    assert not found, found

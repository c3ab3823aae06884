"""Tasks made from the held-out text of a run's own corpus: no download, scored in seconds.

Each is made from the held-out tokens that the run was validated on (`train.val_tokens`), so that
all runs of a study meet the same documents, however much of the corpus is prepared:

- `corpus_text`: bits per byte of passages, each on its own (rolling likelihood);
- `corpus_continuation`: which of four passages goes on, the others being from elsewhere;
- `corpus_recall`: a word that stands in the passage before (LAMBADA's form).
"""

from __future__ import annotations

import random
import re
from typing import Any

from mor.config import ConfigError
from mor.data.packed import Corpus
from mor.evaluate.documents import Row
from mor.evaluate.harness.local import task_config

PASSAGE, NEXT = 96, 32  # characters: together they fit the context of a byte model of the demo
CHOICES = 4
DOCUMENTS = 64  # of each task
READ = 400_000  # held-out tokens that are read at most
WORD = re.compile(r"\b[A-Za-z_]{4,}\b")


def corpus_tasks(corpus: Corpus, val_tokens: int) -> list[dict[str, Any]]:
    """The tasks of the first `val_tokens` held out. Raises ConfigError for too short a text."""
    passages = _passages(corpus, val_tokens)
    if len(passages) < CHOICES:
        raise ConfigError(
            "tasks", "corpus", f"only {len(passages)} passages of held-out text, {CHOICES} needed",
            "train on a larger corpus or name other tasks",
        )  # fmt: skip
    chosen = passages[:DOCUMENTS]
    recall = [row for row in map(_recall, passages) if row][:DOCUMENTS]
    kinds: list[tuple[str, str, list[Row]]] = [
        ("corpus_text", "text", [{"text": passage} for passage in chosen]),
        ("corpus_continuation", "choice", _continuations(chosen)),
        ("corpus_recall", "target", recall),
    ]
    return [task_config(name, kind, rows) for name, kind, rows in kinds if rows]


def _passages(corpus: Corpus, val_tokens: int) -> list[str]:
    """Stretches of held-out text, spread evenly over what is read."""
    text = corpus.tokenizer().decode(corpus.val[: min(READ, val_tokens)])
    length = PASSAGE + NEXT
    starts = range(0, len(text) - length + 1, length)
    step = max(1, len(starts) // (4 * DOCUMENTS))
    found = (text[start : start + length] for start in starts[::step])
    return [passage for passage in found if passage.strip() and "\ufffd" not in passage]


def _continuations(passages: list[str]) -> list[Row]:
    """Each passage's end among those of others, in a drawn place; the draw never changes."""
    generator = random.Random(0)
    rows: list[Row] = []
    for i, passage in enumerate(passages):
        right = passage[PASSAGE:]
        others = [p[PASSAGE:] for j, p in enumerate(passages) if j != i and p[PASSAGE:] != right]
        choices = generator.sample(others, min(CHOICES - 1, len(others)))
        answer = generator.randrange(len(choices) + 1)
        choices.insert(answer, right)
        rows.append({"context": passage[:PASSAGE], "choices": choices, "answer": answer})
    return rows


def _recall(passage: str) -> Row | None:
    """The last word that stands in the passage before it, and what comes before."""
    for match in reversed(list(WORD.finditer(passage))):
        if re.search(rf"\b{match.group()}\b", passage[: match.start()]):
            return {"context": passage[: match.start()], "target": match.group()}
    return None

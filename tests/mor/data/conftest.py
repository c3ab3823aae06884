"""Small corpora in the forms that users have."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from mor.config import DataConfig

WORDS = ["the", "token", "router", "depth", "width", "law", "of", "écrit", "größer", "データ"]


def make_texts(n: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [f"document {i}: " + " ".join(rng.choices(WORDS, k=40)) for i in range(n)]


@pytest.fixture
def texts() -> list[str]:
    return make_texts(60)


@pytest.fixture
def jsonl(tmp_path: Path, texts: list[str]) -> Path:
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps({"n": i, "text": t}) + "\n" for i, t in enumerate(texts)))
    return path


@pytest.fixture
def files(tmp_path: Path) -> Callable[..., DataConfig]:
    """A `files` corpus of the given paths, cached below tmp_path."""

    def make(*paths: Path | str, **settings: object) -> DataConfig:
        values: dict[str, object] = {
            "name": "mine",
            "kind": "files",
            "val_fraction": 0.2,
            "paths": tuple(map(str, paths)),
            "cache_dir": str(tmp_path / "cache"),
        }
        return DataConfig(**{**values, **settings})  # type: ignore[arg-type]

    return make

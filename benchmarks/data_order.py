"""How random the order of rows in windows is, against a permutation of all rows.

    python benchmarks/data_order.py [--json FILE] [--steps 150] [--seeds 4]

Mix: documents of 32 sources (a byte each) in 32 files of 6 MB, prepared in shards of 1 MB; a window
is 17 shards, as many as the default of 268M tokens is of shards of 64 MB. A file is one source
(`topics`), or its documents are of all sources (`random`); `small` are 16 files of 0.13 MB, two
in a window. `excess` is a batch's chi-square over its degrees of freedom, mean over an epoch: 1 for
rows drawn from all sources. Loss: the 9k vanilla model on Python's standard library in 64 small
files in 8 windows, by path (`topics`) or shuffled (`random`), against one permutation, once for
each seed of weights and order; `sigma` is the deviation of the permuted runs over seeds.
"""

from __future__ import annotations

import argparse
import glob
import itertools
import json
import statistics
import sysconfig
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mor.config import Config, DataConfig, ModelConfig, RuntimeConfig, SizeConfig, TrainConfig
from mor.data.batches import Batches
from mor.data.fingerprint import fingerprint
from mor.data.needs import Need
from mor.data.order import Order
from mor.data.prepare import prepare
from mor.evaluate.validation import final_validation
from mor.train.trainer import Trainer

SEQ_LEN, BATCH, SOURCES = 128, 64, 32
SIZE = SizeConfig("9k", 5, 24, n_heads=2, n_kv_heads=1, d_head=12, d_ff=64)
VAL_TOKENS = 2**18


def corpus_of(folder: Path, files: list[list[str]], window_tokens: int) -> DataConfig:
    """JSON lines in shards."""
    folder.mkdir()
    for i, texts in enumerate(files):
        lines = (json.dumps({"text": text}) + "\n" for text in texts)
        (folder / f"{i:03d}.jsonl").write_text("".join(lines))
    data = DataConfig(
        name="order",
        kind="files",
        paths=(f"{folder}/*.jsonl",),
        sharded=True,
        shard_mb=1,
        window_tokens=window_tokens,
        cache_dir=f"{folder}-cache",
    )
    return replace(data, fingerprint=fingerprint(data))


def bytes_of(files: list[list[str]]) -> int:
    """Of all texts: tokens, roughly."""
    return sum(len(text.encode()) for texts in files for text in texts)


def batches_of(data: DataConfig, seed: int, windows: bool) -> Batches:
    """The whole windows of a corpus, in their order or in one permutation."""
    size = sum(Path(path).stat().st_size for path in glob.glob(data.paths[0]))
    need = Need(int(0.9 * size) // data.window_tokens * data.window_tokens + 1, 1)
    batches = Batches(prepare(data, False, need), SEQ_LEN, BATCH, seed)
    if not windows:
        batches.order = Order(batches.n_rows, seed)
    return batches


def excess(batches: Batches) -> float:
    """Chi-square of a batch's sources over its degrees of freedom, mean over an epoch."""
    tokens = np.asarray(batches.corpus.train[: batches.n_rows * SEQ_LEN])
    source = np.unique(tokens.reshape(-1, SEQ_LEN)[:, SEQ_LEN // 2], return_inverse=True)[1]
    share = np.bincount(source) / len(source)
    found = []
    for step in range((batches.order.end or batches.n_rows) // BATCH):
        counts = np.bincount(source[batches.rows(step)], minlength=len(share))
        found.append(np.sum((counts - BATCH * share) ** 2 / (BATCH * share)) / (len(share) - 1))
    return float(np.mean(found))


def mix(folder: Path, kind: str) -> dict[str, Any]:
    """Excess of both orders."""
    count, each, length = (16, 64, 2048) if kind == "small" else (SOURCES, 384, 16384)
    draw = np.random.default_rng(0)
    files = []
    for file in range(count):
        sources = draw.integers(0, SOURCES, each) if kind == "random" else np.full(each, file)
        files.append([chr(64 + s) * length + " " * i for i, s in enumerate(sources)])
    window = bytes_of(files) * 9 // 80 if kind == "small" else 17 * 2**20
    data = corpus_of(folder / f"mix-{kind}", files, window)
    windows, permuted = (excess(batches_of(data, 0, windows=w)) for w in (True, False))
    return {"files": kind, "excess": round(windows, 3), "excess_permuted": round(permuted, 3)}


def library(shuffled: bool) -> list[list[str]]:
    """The standard library in 64 files: neighbours by path together, or any."""
    paths = sorted(Path(sysconfig.get_path("stdlib")).glob("**/*.py"))
    paths = [
        path for path in paths if "site-packages" not in path.parts and "test" not in path.parts
    ]
    texts = [path.read_text(encoding="utf-8", errors="ignore") for path in paths]
    texts = [text for text in texts if text]
    if shuffled:
        texts = [texts[i] for i in np.random.default_rng(0).permutation(len(texts))]
    cuts = np.linspace(0, len(texts), 65).astype(int)
    return [texts[a:b] for a, b in itertools.pairwise(cuts)]


def loss(data: DataConfig, seed: int, windows: bool, steps: int) -> float:
    """Validation loss after some steps over about one epoch's beginning."""
    config = Config(
        ModelConfig("vanilla"),
        SIZE,
        data,
        TrainConfig(batch_size=BATCH, seq_len=SEQ_LEN, precision="fp32", lr=1e-2),
        seed=seed,
        runtime=RuntimeConfig(device="cpu"),
    )
    batches = batches_of(data, seed, windows)
    trainer = Trainer(config, batches, torch.device("cpu"))
    for step in range(steps):
        trainer.step(min(1.0, (step + 1) / 20, (steps - step) / (0.2 * steps)))
    found = final_validation(trainer.model, batches, VAL_TOKENS, trainer.precision())
    return found.causal.nll


def losses(folder: Path, kind: str, steps: int, seeds: int) -> dict[str, Any]:
    """Both orders, seed by seed."""
    files = library(shuffled=kind == "random")
    data = corpus_of(folder / f"library-{kind}", files, bytes_of(files) * 9 // 80)
    pairs = [
        [loss(data, seed, windows, steps) for windows in (True, False)] for seed in range(seeds)
    ]
    gaps = [windows - permuted for windows, permuted in pairs]
    return {
        "files": kind,
        "losses": [[round(value, 4) for value in pair] for pair in pairs],
        "mean_gap": round(statistics.mean(gaps), 4),
        "gap_error": round(statistics.stdev(gaps) / len(gaps) ** 0.5, 4),
        "sigma": round(statistics.stdev(permuted for _, permuted in pairs), 4),
        "tokens": steps * BATCH * SEQ_LEN,
        "window_tokens": data.window_tokens,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--seeds", type=int, default=4, help="2 or more")
    options = parser.parse_args()
    if options.seeds < 2:
        parser.error(f"--seeds {options.seeds}: one seed has no scatter; type --seeds 2 or more")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made:
        report = {
            "mix": [mix(Path(made), kind) for kind in ("random", "topics", "small")],
            "loss": [
                losses(Path(made), kind, options.steps, options.seeds)
                for kind in ("random", "topics")
            ],
        }
    print(json.dumps(report, indent=1))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Preparing a corpus against raw tokenisation of the same text, and reading it from a slow disk.

    python benchmarks/data.py [--json] [--mb 60] [--repeats 3] [--steps 60]

The text is this Python's standard library over and over, documents changed so that none repeats, as
parquet and as JSON lines; the tokenizer is a BPE of 4,096 entries trained on it. `raw` is
`tokenizers.encode_batch_fast` of texts that are in memory already, and `ndarray.tofile`, on both
cores. Each is run in turn, `--repeats` times; ratios are of medians of wall time, so other load on
the machine reaches both. Reading: a step of 400,000 tokens a second from shards whose every read
takes 2 ms longer, as on a cold network file system.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mor.config import DataConfig, from_dict, to_dict

FILES = 8
SEQ_LEN, BATCH = 2048, 16
TOKENS_PER_S = 400_000
SLOW_S = 0.002  # more for every read of a row


def texts(mb: float) -> list[str]:
    """Documents of the standard library, each marked with its number."""
    root = Path(sysconfig.get_path("stdlib"))
    found = [p.read_text(errors="replace") for p in sorted(root.glob("*/*.py"))]
    many, size = list[str](), 0
    for text in itertools.cycle(found):
        many.append(f"# {len(many)}\n{text}")
        size += len(text)
        if size >= mb * 1e6:
            return many
    raise OSError(f"{root} holds no modules")


def write(folder: Path, form: str, documents: list[str]) -> list[Path]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    paths = []
    for i in range(FILES):
        part = documents[i::FILES]
        paths.append(folder / f"{i}.{form}")
        if form == "parquet":
            pq.write_table(pa.table({"text": part}), paths[-1], row_group_size=100)
        else:
            paths[-1].write_text("".join(json.dumps({"text": text}) + "\n" for text in part))
    return paths


def raw(tokenizer: Path, documents: list[str], out: Path) -> tuple[float, int]:
    """Seconds and tokens of the tokenizer alone, with as many threads as it likes."""
    from tokenizers import Tokenizer

    core = Tokenizer.from_file(str(tokenizer))
    began, tokens = time.perf_counter(), 0
    with out.open("wb") as file:
        for start in range(0, len(documents), 100):
            for found in core.encode_batch_fast(documents[start : start + 100]):
                ids = np.array(found.ids, np.uint16)
                tokens += len(ids)
                ids.tofile(file)
    return time.perf_counter() - began, tokens


PREPARE = """
import json, sys, time
from mor.config import DataConfig, from_dict
from mor.data.prepare import prepare
from mor.data.sharded import How
import resource
if __name__ == "__main__":
    data = from_dict(DataConfig, json.loads(sys.argv[1]))
    began = time.perf_counter()
    corpus = prepare(data, False, how=How(workers=int(sys.argv[2])))
    seconds = time.perf_counter() - began
    peak = max(resource.getrusage(who).ru_maxrss for who in
               (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(json.dumps([seconds, corpus.meta.train_tokens + corpus.meta.val_tokens, peak]))
"""


def ours(data: DataConfig, workers: int, folder: Path) -> tuple[float, int, float]:
    """Seconds, tokens and the peak memory (MB) of the largest process of a preparation."""
    script = folder / "prepare.py"
    script.write_text(PREPARE)
    with tempfile.TemporaryDirectory(dir=folder) as cache:
        values = {**to_dict(data), "cache_dir": cache}
        run = subprocess.run(
            [sys.executable, script, json.dumps(values), str(workers)],
            stdout=subprocess.PIPE, text=True, check=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        )  # fmt: skip
    seconds, tokens, peak = json.loads(run.stdout)
    return seconds, tokens, peak / 1024


def preparing(folder: Path, mb: float, repeats: int) -> list[dict[str, Any]]:
    from mor.data.tokenizer import make_tokenizer

    documents = texts(mb)
    train = DataConfig(tokenizer="train", vocab_size=4096)
    make_tokenizer(train, lambda: documents, folder, progress=False)
    rows = []
    for form in ("parquet", "jsonl"):
        paths = write(folder, form, documents)
        data = from_dict(
            DataConfig,
            {"name": form, "kind": "files", "paths": [str(p) for p in paths], "vocab_size": 4096,
             "tokenizer": str(folder / "tokenizer.json"), "sharded": True, "shard_mb": 4,
             "tokens": 1e9},
        )  # fmt: skip
        rates: dict[str, list[float]] = {"raw": [], "one": [], "two": []}
        peak = 0.0
        for _ in range(repeats):
            seconds, tokens = raw(folder / "tokenizer.json", documents, folder / "raw.bin")
            rates["raw"].append(tokens / seconds)
            for name, workers in (("one", 1), ("two", 2)):
                seconds, tokens, most = ours(data, workers, folder)
                rates[name].append(tokens / seconds)
                peak = max(peak, most)
        rate = {name: statistics.median(values) for name, values in rates.items()}
        rows.append({
            "source": form, "tokens": tokens, **{f"{n}_tokens_per_s": r for n, r in rate.items()},
            "two_over_raw": rate["two"] / rate["raw"], "two_over_one": rate["two"] / rate["one"],
            "peak_mb": peak,
        })  # fmt: skip
    return rows


class Slow:
    """The tokens of a corpus on a file system that answers late."""

    def __init__(self, tokens: Any) -> None:
        self._tokens = tokens

    def __len__(self) -> int:
        return len(self._tokens)

    def __getitem__(self, part: slice) -> Any:
        time.sleep(SLOW_S)
        return self._tokens[part]


def reading(folder: Path, steps: int) -> dict[str, float]:
    """Share of a step that waits for its rows, with and without reading ahead."""
    from mor.data.ahead import Ahead
    from mor.data.batches import Batches
    from mor.data.prepare import prepare

    paths = write(folder, "jsonl", texts(1.2e-6 * steps * BATCH * SEQ_LEN + 1))
    values = {"kind": "files", "paths": [str(p) for p in paths], "cache_dir": str(folder / "read"),
              "sharded": True, "shard_mb": 1, "tokens": 1e9,
              "window_tokens": BATCH * SEQ_LEN}  # fmt: skip
    corpus = prepare(from_dict(DataConfig, values), False)
    slow = replace(corpus, train=Slow(corpus.train))
    step_s, found = BATCH * SEQ_LEN / TOKENS_PER_S, {}
    for name in ("ahead", "not_ahead"):
        batches = Batches(slow, SEQ_LEN, BATCH, 0)
        rows = Ahead(batches)
        if name == "not_ahead":
            batches.has = lambda step: False  # type: ignore[method-assign]
        rows.batch(0)
        rows.waited, began = 0.0, time.perf_counter()
        for step in range(1, steps + 1):
            time.sleep(step_s)  # the device trains, the host is free
            rows.batch(step)
        found[name] = rows.waited / (time.perf_counter() - began)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--mb", type=float, default=60, help="text, MB")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60, help="steps that read rows")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = preparing(Path(folder), options.mb, options.repeats)
        waits = reading(Path(folder), options.steps)
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if options.json:
        print(json.dumps({"preparing": rows, "benchmark_mb": own, "wait": waits}, indent=1))
        return
    for row in rows:
        print(
            f"{row['source']:8} {row['two_tokens_per_s']:,.0f} tokens/s with two workers, "
            f"{row['two_over_raw']:.2f} of raw, {row['two_over_one']:.2f} x one worker, "
            f"peak {row['peak_mb']:.0f} MB a process"
        )
    print(
        f"waiting for rows at {TOKENS_PER_S:,} tokens/s, each read {1e3 * SLOW_S:.0f} ms late: "
        f"{waits['ahead']:.2%} of a step, {waits['not_ahead']:.0%} without reading ahead"
    )


if __name__ == "__main__":
    main()

"""One rank of several, started by test_parallel.py with torchrun's environment.

Reads a list of cases from a JSON file and trains them one after another in this process, so that a
single pair of processes serves all of them. A case's folder holds its config.yaml.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import torch

from ledger.folder import RunFolder
from mor.train import trainer
from mor.train.distributed import join, leave
from mor.train.divergence import Diverged
from mor.train.folder import read_config
from mor.train.loop import Stopped
from mor.train.run import Hooks, train_run


def train(case: dict, rank: int) -> str:
    folder = RunFolder(Path(case["folder"]))
    config = read_config(folder)
    runtime = dataclasses.replace(config.runtime, **case.get("runtime", {}))
    config = dataclasses.replace(config, runtime=runtime)
    steps = iter(range(1, 1000))
    stops = case.get("stop_on_rank") == rank
    hooks = Hooks(should_stop=lambda: stops and next(steps) == case["stop_at"])
    if case.get("short_of_memory_on_rank") == rank:
        run_out_of_memory_once()
    try:
        train_run(config, folder, None, hooks)
    except (Stopped, Diverged) as end:
        return f"{type(end).__name__}: {end}"
    return "done"


def run_out_of_memory_once() -> None:
    whole = trainer.Trainer._micro_batch

    def fail(self, *arguments):
        trainer.Trainer._micro_batch = whole
        raise torch.OutOfMemoryError("injected")

    trainer.Trainer._micro_batch = fail


if __name__ == "__main__":
    cases = json.loads(Path(sys.argv[1]).read_text())
    ranks = join()
    ends = [train(case, ranks.rank) for case in cases]
    Path(sys.argv[1]).with_name(f"ends-{ranks.rank}.json").write_text(json.dumps(ends))
    leave()

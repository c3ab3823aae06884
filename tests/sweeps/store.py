"""A study on disk without any training: a plan file as a launch writes it, statuses, attempts."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ledger.attempts import AttemptLog
from ledger.claims import Claim
from ledger.damage import META, sealed
from ledger.result import Result
from ledger.store import Ledger
from mor.config import Config, ModelConfig, RuntimeConfig, SizeConfig, TrainConfig
from sweeps.backends import this_job
from sweeps.config import ClusterConfig
from sweeps.launches import Launch, add_to_study, new_launch
from sweeps.plan import Plan, build_plan
from sweeps.watch import StudyView


class Store:
    """A study named `s` of vanilla runs with some budgets, in `<folder>/studies/s`."""

    def __init__(
        self,
        folder: Path,
        budgets: Iterable[float],
        seeds: int = 1,
        sizes: Mapping[str, int] = {"tiny": 16},  # widths by name
    ) -> None:
        widths = [
            SizeConfig(name, 2, d_model=width, n_heads=2, n_kv_heads=1, d_head=8, d_ff=32)
            for name, width in sizes.items()
        ]
        train = TrainConfig(batch_size=4, seq_len=32, warmup_steps=3, precision="fp32")
        base = Config(
            ModelConfig("vanilla"), widths[0], train=train, runtime=RuntimeConfig(device="cpu")
        )
        configs = [
            replace(base, size=size, budget=budget, seed=seed)
            for size in widths
            for seed in range(seeds)
            for budget in budgets
        ]
        self.folder = folder
        self.ledger = Ledger(folder / "runs")
        self.ledger.runs_dir.mkdir(parents=True, exist_ok=True)  # as each launch does
        self.plan: Plan = build_plan("s", configs, self.ledger, ClusterConfig("cpu", 0.3))
        self.launch: Launch = new_launch(self.plan, self.ledger, folder / "studies" / "s")
        add_to_study(self.launch)
        self.studies_dir = folder / "studies"

    def view(self) -> StudyView:
        return StudyView(self.studies_dir / "s" / "plan.json", Ledger(self.ledger.runs_dir))

    def states(self) -> dict[str, str]:
        look = self.view().look()
        return {row.name: row.state for row in [*look.rows, *look.segments]}

    def runs(self) -> list[str]:
        return [run.run_id for run in self.plan.runs]

    def segments(self) -> list[str]:
        return [segment.segment_id for segment in self.plan.segments]

    def begin(self, task_id: str, claim: bool = False, **status: Any) -> AttemptLog:
        """As a worker begins: an attempt, a status, and with `claim` this process's claim."""
        folder = self.ledger.folder(task_id.split("@")[0])
        folder.path.mkdir(parents=True, exist_ok=True)
        if claim:
            assert Claim(folder.path).acquire()
        log = AttemptLog(folder.path)
        number = log.begin(task_id, self.launch.launch_id, 1, False, this_job())
        values = {"task_id": task_id, "state": "running", "attempt": number, "target": 1.0}
        folder.write_status(**{**values, **status})
        return log

    def finish_segment(self, segment_id: str) -> None:
        segment = next(s for s in self.plan.segments if s.segment_id == segment_id)
        path = self.ledger.folder(segment.trunk_id).plateau(segment.target)
        path.mkdir(parents=True)
        (path / META).write_text(json.dumps(sealed({"progress": {}, "files": {}, "sizes": {}})))

    def result(self, run_id: str, status: str = "done") -> None:
        folder = self.ledger.folder(run_id)
        folder.path.mkdir(parents=True, exist_ok=True)
        folder.write_result(
            Result.from_dict(
                {
                    "run_id": run_id,
                    "status": status,
                    "model": "vanilla",
                    "size": "tiny",
                    "error": None if status == "done" else "step 3: loss nan",
                    "flops": {"spent": 1e9},
                    "loss": {"val_nll_causal": 2.5} if status == "done" else {},
                    "throughput": {"tokens_per_s": 1e4, "flops_per_s": 1e9, "mfu": 0.3},
                }
            )
        )

    def submitted(self, jobs: dict[str, list[str]]) -> None:
        """Write what a launch has submitted: tasks by job id."""
        elements = [
            {"index": i, "job_id": job, "tasks": tasks}
            for i, (job, tasks) in enumerate(jobs.items())
        ]
        array = {"array_id": "1", "shape": {}, "depends_on": None, "elements": elements}
        contents = {"launch_id": self.launch.launch_id, "submitted": "", "arrays": [array]}
        (self.launch.folder.jobs_file).write_text(json.dumps(contents))


def fake_slurm(folder: Path, squeue: str = "", sacct: str | None = "") -> Path:
    """Programs that print what Slurm would, and note how they were called in `calls`; without
    `sacct` there is no accounting. Returns the folder for PATH."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    answers = {"squeue": squeue, "sacct": sacct, "scancel": ""}
    for name, answer in answers.items():
        lines = [f'echo "{name} $*" >> {folder}/calls']
        if answer is None:
            lines.append('echo "Slurm accounting storage is disabled" >&2; exit 1')
        else:
            (folder / f"{name}.txt").write_text(answer)
            lines.append(f"cat {folder}/{name}.txt")
        program = programs / name
        program.write_text("#!/bin/sh\n" + "\n".join(lines) + "\n")
        program.chmod(0o755)
    return programs


def minutes_ago(minutes: float) -> float:
    return time.time() - 60 * minutes

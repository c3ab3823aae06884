"""Commands over a store of many runs and a queue of as many jobs: seconds and peak memory of each.

python benchmarks/scale.py [--runs 10000] [--variants 10] [--only NAME,...] [--keep FOLDER]
                           [--json FILE]

Study `done` has the 36 runs of `study=paper` (3 models) at `--variants` learning rates, each under
a label of its own, and with as many seeds as make the number; each run has a result (a law of
Hoffmann et al.'s form with noise) and a learning curve of 40 lines. Study `queue` has as many
more, submitted to Slurm: a tenth runs on 1,000 nodes and the others wait; squeue and sacct are
programs that print what Slurm would. The commands are those of a user, each a process of its own;
`most_mb` is its largest resident memory. `limit_s` is what we want of it at 10,000.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np

REPO = Path(__file__).parents[1]
sys.path.insert(0, str(REPO))

from ledger.attempts import AttemptLog  # noqa: E402
from ledger.folder import RunFolder  # noqa: E402
from ledger.jobs import Job  # noqa: E402
from ledger.result import Flops, Result, Throughput  # noqa: E402
from ledger.store import Ledger  # noqa: E402
from mor.identity import identity  # noqa: E402
from sweeps.config import ClusterConfig  # noqa: E402
from sweeps.launches import add_to_study, new_launch  # noqa: E402
from sweeps.plan import Plan, Run, build_plan  # noqa: E402
from tests.reference.ids.renew import study_runs  # noqa: E402

NODES, ARRAY = 1000, 1000  # nodes that run something; elements of one job array
LINES = 40  # of a learning curve
EDGE = {"vanilla": 1.0, "recursive": 0.985, "mor": 0.995}  # factors of the loss
MOST_MB = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--variants", type=int, default=10, help="curves of each model")
    parser.add_argument("--only", default="")
    parser.add_argument("--keep", type=Path, help="where the store is made and left")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = options.keep or Path(made)
        if not (folder / "studies").exists():
            began = time.perf_counter()
            making = get_context("spawn").Process(
                target=make_store, args=(folder, options.runs, options.variants)
            )  # a process of its own: a child's peak memory begins at its parent's
            making.start()
            making.join()
            if making.exitcode:
                raise SystemExit(1)
            print(f"store of {options.runs:,} runs made in {time.perf_counter() - began:.0f} s")
        found = {}
        print(f"{'command':14}{'seconds':>9}{'limit_s':>9}{'most_mb':>9}  output")
        for one in commands(folder, (folder / "example").read_text(), options.runs):
            if options.only and one.name not in options.only.split(","):
                continue
            found[one.name] = one.run(folder)
            print(row(one, found[one.name]), flush=True)
    if options.json:
        report = {"runs": options.runs, "most_mb_limit": MOST_MB, "commands": found}
        options.json.write_text(json.dumps(report, indent=1) + "\n")


# -- the commands --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Command:
    """One that a user types, and the file that it writes."""

    name: str
    arguments: tuple[str, ...]
    limit_s: float
    written: str | None = None

    def run(self, folder: Path) -> dict[str, float]:
        path = f"{folder}/bin{os.pathsep}{os.environ['PATH']}"
        began = time.perf_counter()
        with (folder / f"{self.name}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, *self.arguments],
                cwd=folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PATH": path, "PYTHONPATH": str(REPO), "COLUMNS": "160"},
            )
            _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        if status:
            end = (folder / f"{self.name}.log").read_text()[-2000:]
            raise SystemExit(f"{self.name}: exit status {status}\n{end}")
        found = {"seconds": round(seconds, 2), "limit_s": self.limit_s}
        found["most_mb"] = round(used.ru_maxrss * _RSS_UNIT / 1e6)
        if self.written:
            found["written_mb"] = round((folder / self.written).stat().st_size / 1e6, 2)
        return found


_RSS_UNIT = 1 if sys.platform == "darwin" else 1024


def commands(folder: Path, example: str, runs: int) -> list[Command]:
    """In the order of a study's life."""
    seeds = ",".join(str(seed) for seed in range(-(-runs // len(study_runs("paper")))))
    plan = ("-m", "study=paper", f"seed={seeds}", "launch=plan", "runs_dir=empty")
    plan = (*plan, "launch.plan_file=plan.json")
    analysis = ("-m", "analysis")
    sweeps = ("-m", "sweeps")
    return [
        Command("plan", (str(REPO / "sweep.py"), *plan), 15, "plan.json"),
        Command("status", (*sweeps, "status", "queue"), 3),
        Command("status_done", (*sweeps, "status", "done"), 3),
        Command("why", (*sweeps, "why", example), 3),
        Command("page", (*sweeps, "watch", "done", "--page"), 10, "studies/done/watch.html"),
        Command("isoflop", (*analysis, "isoflop", "studies/done"), 10),
        Command("compare", (*analysis, "compare", "studies/done"), 10),
        Command("figures", (*analysis, "figures", "studies/done"), 30),
        Command("report", (*analysis, "report", "studies/done", "--out", "r.html"), 30, "r.html"),
    ]


def row(command: Command, found: dict[str, float]) -> str:
    """A line of the table."""
    over = found["seconds"] > command.limit_s or found["most_mb"] > MOST_MB
    size = f"{found['written_mb']:.2f} MB" if "written_mb" in found else ""
    return (
        f"{command.name:14}{found['seconds']:>9}{command.limit_s:>9}{found['most_mb']:>9}  {size}"
        + "  over" * over
    )


# -- the store -----------------------------------------------------------------------------------


def make_store(folder: Path, runs: int, variants: int) -> None:
    """Write both studies, and the id of a run that waits to `example`."""
    base = [
        replace(
            run,
            label=f"v{v}" if v else run.label,
            train=replace(run.train, lr=run.train.lr * 1.01**v),
        )
        for run in study_runs("paper")
        for v in range(variants)
    ]
    seeds = -(-runs // len(base))
    (folder / "runs").mkdir(parents=True, exist_ok=True)
    ledger = Ledger((folder / "runs").absolute())
    plans = {}
    for name, first in (("done", 0), ("queue", seeds)):
        configs = [replace(c, seed=first + s) for s in range(seeds) for c in base][:runs]
        plans[name] = build_plan(name, configs, ledger, ClusterConfig("h100", 0.4))
    draw = np.random.default_rng(0)
    for run in plans["done"].runs:
        finished(run, ledger.folder(run.run_id), draw)
    for segment in plans["done"].segments:
        _curve(ledger.folder(segment.trunk_id), segment.target, 3.0)
    write_launch(plans["done"], ledger, folder)
    (folder / "example").write_text(submitted(plans["queue"], ledger, folder))


def finished(run: Run, folder: RunFolder, draw: np.random.Generator) -> None:
    """A result and a curve."""
    params, tokens = run.cost.params.nonembedding, run.tokens
    loss = EDGE.get(run.config.model.name, 1.0) * (1.69 + 406 / params**0.34 + 411 / tokens**0.28)
    loss += draw.normal(0, 0.003 * loss)
    folder.path.mkdir(parents=True, exist_ok=True)
    keys = ("val_nll_causal", "val_nll_topk", "train")
    folder.write_result(
        Result(
            run_id=run.run_id,
            status="done",
            model=run.config.model.name,
            size=run.config.size.name,
            budget=run.config.budget,
            convention=run.config.flops.convention,
            seed=run.config.seed,
            n_params=run.cost.params.total,
            n_params_nonembedding=params,
            tokens=tokens,
            steps=run.steps.total,
            flops=Flops(planned=run.config.budget, spent=run.flops["paper"], extra=dict(run.flops)),
            loss=dict.fromkeys(keys, loss),
            throughput=Throughput(
                device="NVIDIA H100", tokens_per_s=1e5, flops_per_s=4e14, mfu=0.4
            ),
            trunk=run.trunk_id,
            settings=identity(run.config),
            data={"name": run.config.data.name, "fingerprint": run.config.data.fingerprint},
            finished="2026-11-27T12:00:00+00:00",
        )
    )
    _curve(folder, run.flops["paper"], loss)


def _curve(folder: RunFolder, spent: float, loss: float) -> None:
    folder.path.mkdir(parents=True, exist_ok=True)
    lines = [
        {"step": i, "tokens": i * 10**6, "spent": spent * i / LINES, "loss": loss + 3 / i}
        for i in range(1, LINES + 1)
    ]
    folder.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_launch(plan: Plan, ledger: Ledger, folder: Path) -> Path:
    """The plan of a launch and of its study; the file that names a launch's jobs."""
    launch = new_launch(plan, ledger, folder / "studies" / plan.study)
    add_to_study(launch)
    return launch.folder.jobs_file


def submitted(plan: Plan, ledger: Ledger, folder: Path) -> str:
    """All runs of a plan as elements of job arrays, a tenth of them running."""
    jobs_file = write_launch(plan, ledger, folder)
    launch_id = jobs_file.parent.name
    arrays, lines, running = [], list[str](), len(plan.runs) // 10
    for start in range(0, len(plan.runs), ARRAY):
        number, elements = 1000 + start // ARRAY, []
        for i, run in enumerate(plan.runs[start : start + ARRAY]):
            job, at = f"{number}_{i}", start + i
            elements.append({"index": i, "job_id": job, "tasks": [run.run_id]})
            state = "RUNNING" if at < running else "PENDING"
            node = f"node{at % NODES}" if at < running else ""
            reason = "None" if at < running else "Priority"
            lines.append(f"{job}|{state}|{reason}|{node}|N/A|12:00:00|gpu|(null)")
            if at < running:
                _begin(run, ledger, launch_id, job)
        array = {"array_id": str(number), "shape": {}, "depends_on": None, "elements": elements}
        arrays.append(array)
    contents = {"launch_id": launch_id, "submitted": "", "arrays": arrays}
    jobs_file.write_text(json.dumps(contents))
    programs(folder, {"squeue": "\n".join(lines) + "\n", "sacct": "", "scancel": ""})
    return plan.runs[-1].run_id


def _begin(run: Run, ledger: Ledger, launch_id: str, job: str) -> None:
    folder = ledger.folder(run.run_id)
    folder.path.mkdir(parents=True, exist_ok=True)
    number = AttemptLog(folder.path).begin(run.run_id, launch_id, 1, False, Job(job, 0))
    values = {"task_id": run.run_id, "state": "running", "attempt": number, "spent": 1e17}
    folder.write_status(**values, target=run.config.budget)


def programs(folder: Path, answers: dict[str, str]) -> None:
    """Programs in `<folder>/bin` that print these answers."""
    (folder / "bin").mkdir()
    for name, answer in answers.items():
        (folder / "bin" / f"{name}.txt").write_text(answer)
        program = folder / "bin" / name
        program.write_text(f"#!/bin/sh\ncat {folder.absolute()}/bin/{name}.txt\n")
        program.chmod(0o755)


if __name__ == "__main__":
    main()

"""Two gloo processes train what one does: losses, meters, checkpoints, results, ends."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ledger.folder import RunFolder
from ledger.metrics import VALIDATION, read_metrics
from mor.config import Config, ConfigError
from mor.train.distributed import tells_of_a_lost_rank
from mor.train.folder import create_folder, read_config
from mor.train.loop import Stopped
from mor.train.memory import MicroBatch
from mor.train.run import Hooks, train_run
from tests.conftest import REPO, toy_runs
from tests.mor.train.test_run import final

MODELS = ["vanilla", "recursive", "mor", "mor_token", "loss_free", "sequence"]
KINDS = ["ddp", "fsdp"]
STEPS = 8


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def start_ranks(arguments: list[str], size: int = 2, **options) -> list[subprocess.Popen[str]]:
    """The same command as every rank, with the environment that torchrun gives."""
    common = {
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "PYTHONPATH": str(REPO),
        "OMP_NUM_THREADS": "1",
    }
    return [
        subprocess.Popen(
            [sys.executable, *arguments],
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **options,
        )
        for rank in range(size)
    ]


def finish(
    ranks: list[subprocess.Popen[str]], timeout: float = 150, codes: tuple[int, ...] = (0, 0)
) -> list[str]:
    """Wait for all ranks; returns what each printed."""
    try:
        outputs = [rank.communicate(timeout=timeout)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    for rank, output, code in zip(ranks, outputs, codes, strict=True):
        assert rank.returncode == code, output[-3000:]
    return outputs


def config_of(name: str, toy_run) -> Config:
    if name not in ("loss_free", "sequence"):
        return toy_run(name, steps=STEPS)
    config = toy_run("mor_token", steps=STEPS)
    if name == "sequence":  # a recursion's layers are its own, and some may see no token
        return replace(config, model=replace(config.model, sharing="sequence"))
    router = replace(config.model.router, balancing="loss_free", bias_update_rate=0.01)
    return replace(config, model=replace(config.model, router=router))


def train(config: Config, folder: Path, **hooks) -> RunFolder:
    run = RunFolder(folder)
    train_run(config, run, None, Hooks(**hooks))
    return run


def losses(folder: RunFolder) -> list[float]:
    return [json.loads(line)["loss"] for line in folder.metrics_file.read_text().splitlines()]


COUNTED = ("run_id", "status", "tokens", "steps", "epochs", "mean_recursions_train", "flops")


def numbers(folder: RunFolder) -> dict:
    """What a result counts, beside what is computed from the weights."""
    result = folder.result()
    return {key: getattr(result, key) for key in COUNTED}


class Pair:
    """Every case of this file, trained by one pair of processes, and its one-process twin."""

    def __init__(self, root: Path, toy_run) -> None:
        self.root, self.cases = root, []
        for name in MODELS:
            config = config_of(name, toy_run)
            train(config, root / f"{name}-whole")
            halves = replace(config, runtime=replace(config.runtime, micro_batch=2))
            train(halves, root / f"{name}-halves")
            for kind in KINDS:
                self.add(f"{name}-{kind}", config, runtime={"parallel": kind})
        self.add_resumes(toy_run("mor_token", steps=STEPS))
        diverging = toy_run("vanilla", steps=STEPS, lr=1e30, clip=1e30)
        for kind in KINDS:
            self.add(f"diverged-{kind}", diverging, runtime={"parallel": kind})
        points = toy_run("mor", steps=STEPS, eval_points=4)
        train(points, root / "points-whole")
        for kind in KINDS:
            self.add(f"points-{kind}", points, runtime={"parallel": kind})
        self.add("memory", toy_run("mor", steps=STEPS), short_of_memory_on_rank=1)
        file = root / "cases.json"
        file.write_text(json.dumps(self.cases))
        script = str(Path(__file__).with_name("one_rank.py"))
        self.outputs = finish(start_ranks([script, str(file)]))
        found = [json.loads((root / f"ends-{rank}.json").read_text()) for rank in range(2)]
        self.ends = {
            Path(case["folder"]).name: ends for case, *ends in zip(self.cases, *found, strict=True)
        }

    def add(self, name: str, config: Config, **case) -> None:
        folder = RunFolder(self.root / name)
        create_folder(folder, config)
        self.cases.append({"folder": str(folder.path), **case})

    def add_resumes(self, config: Config) -> None:
        """Two ranks take up what one began, and stop again where one is to take it up."""
        for kind in KINDS:
            name = f"resumed-{kind}"
            calls = iter(range(1, 1000))
            with pytest.raises(Stopped):
                train(config, self.root / name, should_stop=lambda: next(calls) == 3)  # noqa: B023
            self.add(name, config, runtime={"parallel": kind}, stop_on_rank=1, stop_at=3)

    def folder(self, name: str) -> RunFolder:
        return RunFolder(self.root / name)


@pytest.fixture(scope="module")
def pair(tmp_path_factory, architectures, tiny) -> Pair:
    root = tmp_path_factory.mktemp("pair")
    return Pair(root, toy_runs(root, architectures, tiny))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MODELS)
def test_two_ranks_have_the_losses_and_the_meter_of_one(name, kind, pair):
    ours, whole, halves = (pair.folder(f"{name}-{way}") for way in (kind, "whole", "halves"))
    assert pair.ends[ours.run_id] == ["done", "done"]
    assert len(losses(ours)) == STEPS
    assert losses(ours) == pytest.approx(losses(whole), rel=1e-6)
    assert numbers(ours) == numbers(whole)  # FLOPs, tokens, depths: exactly
    assert ours.result().loss == pytest.approx(whole.result().loss, rel=1e-6)
    assert ours.result().throughput.devices == 2
    if kind == "ddp":  # two ranks add up what two micro-batches do, in the same order
        assert final(ours.path) == final(halves.path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_goes_on_with_one_rank_or_two_in_turn(kind, pair):
    whole, ours = pair.folder("mor_token-whole"), pair.folder(f"resumed-{kind}")
    assert pair.ends[ours.run_id] == ["Stopped: stopped at step 6"] * 2  # asked of rank 1 alone
    assert len(losses(ours)) == 6
    [newest] = [p for p in ours.checkpoints.glob("step-*") if p.name.endswith("6")]
    shares = {path.name for path in newest.glob("*.distcp")}
    assert shares == {"__0_0.distcp", "__1_0.distcp"}  # each rank wrote its own
    train(read_config(ours), ours.path)
    assert losses(ours) == pytest.approx(losses(whole), rel=1e-6)
    assert numbers(ours) == numbers(whole)


@pytest.mark.parametrize("kind", KINDS)
def test_both_ranks_stop_where_numbers_end(kind, pair):
    name = f"diverged-{kind}"
    first, second = pair.ends[name]
    assert first == second
    assert first.startswith("Diverged: step ")
    assert pair.folder(name).result().status == "diverged"


def test_a_rank_that_runs_out_of_memory_lowers_the_micro_batch_of_all(pair):
    """Each rank has 2 of the 4 sequences; after rank 1 fell short both take them one by one."""
    ours = pair.folder("memory")
    assert pair.ends["memory"] == ["done", "done"]
    assert json.loads((ours.path / "micro_batch.json").read_text()).popitem()[1] == 1
    assert losses(ours) == pytest.approx(losses(pair.folder("mor-whole")), rel=1e-6)
    assert numbers(ours) == numbers(pair.folder("mor-whole"))


def test_a_batch_that_ranks_cannot_share_is_refused(toy_run):
    with pytest.raises(ConfigError, match=r"train.batch_size=4: cannot be .* 3 processes"):
        MicroBatch(toy_run("mor"), torch.device("cpu"), n_ranks=3)


@pytest.mark.parametrize("kind", KINDS)
def test_points_on_the_way_are_those_of_one_process(pair, kind):
    def points(name: str) -> list[dict]:
        found, _ = read_metrics(RunFolder(pair.root / name).metrics_file)
        return [line for line in found if VALIDATION in line]

    ours, whole = points(f"points-{kind}"), points("points-whole")
    assert [one["step"] for one in ours] == [one["step"] for one in whole] == [2, 4, 6]
    for one, other in zip(ours, whole, strict=True):
        assert one.keys() == other.keys()
        assert one[VALIDATION] == pytest.approx(other[VALIDATION], rel=1e-5)


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (RuntimeError("[x/gloo/transport/tcp/pair.cc:5] Connection closed by peer [::1]:9"), True),
        (RuntimeError("[x/gloo/transport/tcp/unbound_buffer.cc:8] Timed out waiting 9ms"), True),
        (torch.distributed.DistBackendError("NCCL error: remote process exited"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ConnectionResetError("by the tracking server"), False),
    ],
)
def test_a_lost_rank_is_told_from_other_errors(error, lost):
    assert tells_of_a_lost_rank(error) is lost

"""Every architecture's training step and validation, and the engine, on a GPU that is not there: no
tensor is on another device or of another type than its operator takes, none holds n x n numbers,
and attention never falls to the kernel that holds the scores."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.conftest import REPO
from tests.fake_gpu import card
from tests.fake_gpu.cases import CASES, EVERY, SERVING
from tests.fake_gpu.pretend import Allocations, Fault, Player, Recorder, _attended, _in_blocks

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).with_name("cases.py")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """All cases in one process: the stub must be there before torch is."""
    if shutil.which("g++") is None:
        pytest.skip("there is no g++ to compile the stub of a driver")
    folder = tmp_path_factory.mktemp("card")
    command = [sys.executable, str(SCRIPT), str(card.build(folder)), str(folder / "out.json")]
    environment = {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return json.loads((folder / "out.json").read_text())


@pytest.mark.parametrize("name", [name for name in CASES if name != "dense"])
def test_it_trains_and_validates(name, results):
    assert isinstance(results[name], dict), results[name]


def test_dense_masks_are_found(results):
    """What the harness is for: the same model with the masks of a CPU."""
    assert results["dense"].startswith("Fault: dense")


# Where a step makes the host wait for the GPU, beside its one reading of losses and gradient norm:
# token choice needs to know how many tokens go where, of each of the two micro-batches.
ROUTING = {"token.py:depth_table"}
LOAD = {"trainer.py:_own_load"}  # of the whole batch, once, for the balancing loss


@pytest.mark.parametrize("name", [name for name in CASES if name != "dense"])
def test_a_step_waits_for_the_gpu_once(name, results):
    waits = Counter(results[name]["train"])
    waits.pop("trainer.py:__init__")  # the model's weights, once
    assert waits.pop("trainer.py:_add_up") == 1
    for where, times in waits.items():
        assert where in ROUTING | LOAD, waits
        assert EVERY[name]["model"].router.type == "token"
        assert times <= (2 if where in ROUTING else 1) * 2


@pytest.mark.parametrize("name", SERVING)
def test_the_engine_waits_for_decisions_and_tokens_only(name, results):
    """Once for the decisions before and behind a block, once for the tokens of everybody, drawn or
    the likeliest, and once for the scores of prompts: whatever is asked for, and of how many."""
    assert isinstance(results[name], dict), results[name]
    waits, ticks = Counter(results[name]["serve"]), results[name]["ticks"]
    waits.pop("torch")  # the model's weights, once
    assert 0 < waits.pop("sampling.py:choose") <= ticks
    assert 0 < waits.pop("engine.py:_score") <= ticks
    assert waits.pop("runner.py:_decide", 0) <= ticks + results[name]["block_runs"]
    assert not waits


# -- the harness itself: what it must find -----------------------------------------------------


def planted(work, shortest: int = 50) -> None:
    """Run `work` as `twice` does, on tensors that need no gradient, so that no stub is needed."""
    with Recorder() as recorder:
        work(torch.device("cpu"))
    with FakeTensorMode(), Allocations(shortest), Player(recorder.tape) as player:
        work(torch.device("cuda"))
    planted.waits = player.waits  # type: ignore[attr-defined]


def test_a_mix_of_devices_is_found():
    with pytest.raises(RuntimeError, match="device"):
        planted(lambda device: torch.ones(3, device=device) + torch.ones(3))


def test_a_type_that_does_not_match_is_found():
    def work(device: torch.device) -> None:
        found = torch.zeros(3, dtype=torch.bfloat16, device=device)
        index = torch.zeros(2, dtype=torch.long, device=device)
        found.index_add(0, index, torch.ones(2, device=device))

    with pytest.raises(RuntimeError, match=r"(?i)type"):
        planted(work)


def test_a_matrix_of_scores_is_found():
    def work(device: torch.device) -> None:
        x = torch.ones(2, 60, 8, device=device)
        x @ x.transpose(1, 2)

    with pytest.raises(Fault, match="dense"):
        planted(work)


def test_readings_are_played_back_and_counted():
    seen = []

    def work(device: torch.device) -> None:
        x = torch.tensor([0.0, 2.0, 3.0], device=device)
        seen.append((x.sum().item(), (x > 1).nonzero().shape[0], x[x > 1].shape[0]))

    planted(work)
    assert seen == [(5.0, 2, 2)] * 2
    readings, copy_to_the_gpu = 3, 1
    assert len(planted.waits) == readings + copy_to_the_gpu  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("dtype", "grouped", "masked", "fine"),
    [
        (torch.bfloat16, True, False, True), (torch.float32, True, False, False),
        (torch.bfloat16, True, True, False), (torch.float32, False, True, True),
    ],
)  # fmt: skip
def test_the_math_kernel_is_found(dtype, grouped, masked, fine):
    q, k = torch.ones(1, 4, 5, 16, dtype=dtype), torch.ones(1, 2, 5, 16, dtype=dtype)
    k = k if grouped else k.repeat_interleave(2, 1)
    mask = torch.zeros(1, 1, 5, 5, dtype=dtype) if masked else None
    if fine:
        assert _attended(q, k, k, mask, enable_gqa=grouped).shape == q.shape
    else:
        with pytest.raises(Fault, match="math kernel"):
            _attended(q, k, k, mask, enable_gqa=grouped)
    with pytest.raises(Fault, match="attention"):
        _attended(q, k.half(), k.half())


def test_narrow_heads_in_blocks_are_found():
    from mor.model.masks import Places, block_mask

    places = Places(torch.arange(128)[None], None, 128, 128)
    q = torch.ones(1, 2, 128, 8)
    with pytest.raises(Fault, match="blocks"):
        _in_blocks(q, q, q, block_mask(places, places).mask, 1.0, False)

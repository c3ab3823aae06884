"""One writer per run: claims are exclusive, stale ones are taken over, lost ones are noticed."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import time

import pytest

from ledger import claims as module
from ledger import processes
from ledger.claims import Claim, LostClaim


def test_exclusive_until_released(tmp_path):
    a, b = Claim(tmp_path), Claim(tmp_path)
    assert a.acquire()
    assert not b.acquire()
    a.release()
    assert b.acquire()


def _try(folder, barrier, queue):
    claim = Claim(folder)
    barrier.wait()
    queue.put(claim.acquire())
    barrier.wait()


def test_of_many_processes_one_gets_it_even_over_a_dead_holder(tmp_path):
    context = multiprocessing.get_context("fork")
    for _ in range(5):
        dead = subprocess.Popen([sys.executable, "-c", ""])
        dead.wait()
        holder = {"token": "x", "host": os.uname().nodename, "pid": dead.pid, "started": 0.0}
        (tmp_path / "claim.json").write_text(json.dumps(holder))
        barrier, queue = context.Barrier(6), context.Queue()
        processes = [
            context.Process(target=_try, args=(tmp_path, barrier, queue)) for _ in range(6)
        ]
        for process in processes:
            process.start()
        won = [queue.get(timeout=30) for _ in processes]
        for process in processes:
            process.join()
        assert sum(won) == 1


def test_a_holder_on_another_machine_is_stale_only_without_a_heartbeat(tmp_path, monkeypatch):
    file = tmp_path / "claim.json"
    file.write_text(json.dumps({"token": "x", "host": "elsewhere", "pid": 1}))
    assert not Claim(tmp_path).acquire()
    old = time.time() - module.STALE_S - 1
    os.utime(file, (old, old))
    assert Claim(tmp_path).acquire()


def test_a_worker_finds_out_that_it_lost_its_claim(tmp_path):
    first, second = Claim(tmp_path), Claim(tmp_path)
    assert first.acquire()
    old = time.time() - module.STALE_S - 1
    os.utime(tmp_path / "claim.json", (old, old))
    assert second.acquire()
    with pytest.raises(LostClaim):
        first.renew()
    first.release()
    assert second.held()


def test_a_pid_given_anew_is_not_the_holder(tmp_path):
    holder = {"token": "x", "host": os.uname().nodename, "pid": os.getpid(), "started": 1.0}
    (tmp_path / "claim.json").write_text(json.dumps(holder))
    assert Claim(tmp_path).acquire()


def test_clocks_that_jump_take_no_claim_from_a_process_that_lives(tmp_path, monkeypatch):
    """Neither this host's clock, nor the boot time that shifts with it, says who lives."""
    holder = subprocess.Popen(
        [
            *(sys.executable, "-c"),
            "import sys, pathlib; from ledger.claims import Claim;"
            "assert Claim(pathlib.Path(sys.argv[1])).acquire(); print('held', flush=True);"
            "sys.stdin.read()",
            str(tmp_path),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout.readline() == b"held\n"
    now, boot = time.time(), processes._boot_time()
    for jump in (-1e5, -600.0, 600.0, 1e5):
        monkeypatch.setattr(time, "time", lambda jump=jump: now + jump)
        monkeypatch.setattr(processes, "_boot_time", lambda jump=jump: boot + jump)
        assert Claim(tmp_path).held()
        assert not Claim(tmp_path).acquire()
    holder.kill()
    holder.wait()
    assert Claim(tmp_path).acquire()


def test_a_claim_that_cannot_be_read_is_stale_in_time(tmp_path):
    file = tmp_path / "claim.json"
    for content in (b"\xff{", b"{", b"[1]", b""):
        file.write_bytes(content)
        assert not Claim(tmp_path).acquire()
        old = time.time() - module.TORN_S - 1
        os.utime(file, (old, old))
        claim = Claim(tmp_path)
        assert claim.acquire()
        file.write_bytes(content)
        claim.renew()  # its holder lives, and writes it anew
        assert json.loads(file.read_text())["pid"] == os.getpid()
        claim.release()
        assert not file.exists()

"""How many devices a speed is of, as attempts count them: GPUs, or the threads of all processes.

Speeds on a CPU that were written before `threads` was kept count processes.
"""

from __future__ import annotations

from ledger.attempts import AttemptLog
from ledger.folder import RunFolder
from ledger.result import Result
from ledger.speeds import Speed

CPU = "cpu"


def devices_of_run(folder: RunFolder, result: Result) -> int:
    """Devices of a run's speed; of an older one, those of the attempt that has finished it."""
    speed = result.throughput
    if speed.device == CPU and speed.threads is None:
        mine = [one for one in AttemptLog(folder.path).read() if one.task_id == folder.run_id]
        if mine:
            return mine[-1].devices
    return speed.devices or 1


def devices_of_speed(speed: Speed) -> int:
    """Devices of a measurement before a study; its settings have the threads of each process."""
    if speed.device == CPU and speed.threads is None:
        runtime = speed.settings.get("runtime")
        threads = runtime.get("threads") if isinstance(runtime, dict) else None
        return speed.devices * (threads if isinstance(threads, int) else 1)
    return speed.devices

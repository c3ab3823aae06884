"""How attempts end, as sentences that say what to do about it."""

from __future__ import annotations

ENDS = {
    "time limit": "the time limit of its job ended it; {again} from its checkpoint, "
    "launch.slurm.timeout_min gives it longer",
    "preempted": "a job of higher priority took its node; {again} from its checkpoint",
    "requeued": "its job was requeued from outside; {again} from its checkpoint",
    "cancelled": "it was cancelled; {again} from its checkpoint",
    "stopped": "it was asked to stop ({note}) and wrote a checkpoint; {again} from there",
    "node failure": "its node failed; {again} from its newest checkpoint",
    "process lost": "another process of its job ended first (killed, out of memory, its node lost, "
    "or an error that is in its log below workers/ of the launch); {again} from its newest "
    "checkpoint",
    "out of memory": "the job used more memory than it had asked for; set launch.slurm.mem_gb "
    "higher or runtime.micro_batch lower and launch the study again",
    "killed": "its process exited without reporting a cause (kill -9, or out of memory on a "
    "machine without limits); {again} from its newest checkpoint",
    "disk full": "the disk is full; free some space, then {again} from its newest checkpoint",
    "failed": "it failed: {note}; fix the cause, then {again} from its newest checkpoint",
    "diverged": "its loss is not finite ({note}); a smaller train.lr makes another run, "
    "and python -m sweeps retry {run} --diverged tries this one once more",
}


def why_ended(cause: str, note: str | None, run: str, queued: bool) -> str:
    """The cause of an attempt's end as a sentence. `queued`: a job holds the run again."""
    again = "it goes on" if queued else f"python -m sweeps retry {run} goes on"
    words = ENDS.get(cause, cause)
    return words.format(again=again, note=note or "no more is known", run=run)

"""Slurm's words for why a job waits, as a sentence and what to do about it."""

from __future__ import annotations

# The longest beginning of a reason counts: Slurm appends details to some.
REASONS = {
    "None": "Slurm has not looked at it yet; wait some seconds",
    "Resources": "it is the next one and waits for nodes to become free; nothing to do",
    "Priority": "jobs of a higher priority come first; nothing to do, though a smaller "
    "launch.slurm.timeout_min lets it slip into gaps",
    "Dependency": "it waits for the job of its trunk to end well; nothing to do",
    "DependencyNeverSatisfied": "the job that it waits for failed or was cancelled, so it never "
    "starts; type python -m sweeps retry {run}",
    "BeginTime": "it was requeued and may begin again in a moment; nothing to do",
    "JobArrayTaskLimit": "as many elements of its array run as launch.slurm.array_parallelism "
    "allows; nothing to do",
    "QOSMaxJobs": "you run as many jobs as your QOS allows at once; nothing to do, or pack more "
    "runs into a job with launch.slurm.pack_min",
    "QOSMaxSubmitJob": "you have submitted as many jobs as your QOS allows; wait for some to end",
    "QOSMaxWallDurationPerJob": "its time limit is above that of the QOS; lower "
    "launch.slurm.timeout_min (a run resumes in the next job) and launch again",
    "QOSMaxGRES": "it asks for more GPUs than your QOS allows; lower launch.slurm.gpus_per_node",
    "QOSMaxCpu": "you hold as many CPUs as your QOS allows; nothing to do, or lower "
    "launch.slurm.cpus_per_task",
    "QOSMax": "a limit of your QOS for each user or job is reached; wait for your other jobs, or "
    "set launch.slurm.qos",
    "QOSGrp": "your QOS as a group has used up its share; wait, or set launch.slurm.qos",
    "QOSMin": "it asks for less than the QOS demands; set launch.slurm.qos",
    "QOSResourceLimit": "your QOS has no room for what it asks for; wait, or set launch.slurm.qos",
    "AssocMaxJobs": "you run as many jobs as your account allows at once; nothing to do",
    "AssocMaxWall": "its time limit is above that of your account; lower "
    "launch.slurm.timeout_min and launch again",
    "AssocMax": "a limit of your account for each user or job is reached; wait for your other jobs",
    "AssocGrp": "your account has used up its share; wait, or set launch.slurm.account",
    "InvalidAccount": "its account is not valid; set launch.slurm.account and launch again",
    "InvalidQOS": "its QOS is not valid; set launch.slurm.qos and launch again",
    "PartitionTimeLimit": "its time limit is above that of the partition, so it never starts; "
    "lower launch.slurm.timeout_min or set launch.slurm.partition, cancel it and launch again",
    "PartitionNodeLimit": "it asks for more nodes than the partition gives to a job; set "
    "launch.slurm.partition or fewer launch.slurm.nodes, cancel it and launch again",
    "PartitionDown": "the partition is down; wait, or set launch.slurm.partition",
    "PartitionInactive": "the partition takes no jobs now; wait, or set launch.slurm.partition",
    "ReqNodeNotAvail": "nodes that it needs are down, drained or reserved (often a maintenance "
    "window that its time limit reaches into); wait, or lower launch.slurm.timeout_min",
    "NodeDown": "a node that it needs is down; wait, or cancel it and launch again",
    "BadConstraints": "no node has what it asks for; change launch.slurm.constraint, "
    "gpus_per_node, cpus_per_task or mem_gb, cancel it and launch again",
    "Reservation": "it waits for its reservation to begin; nothing to do",
    "Licenses": "it waits for a licence; nothing to do",
    "JobHeldUser": "it is on hold, by you; type scontrol release {job}",
    "JobHeldAdmin": "an administrator holds it; ask them",
    "JobHoldMaxRequeue": "Slurm has requeued it so often that it gave up; look at its log, then "
    "type scontrol release {job}",
    "launch failed requeued held": "its node could not start it, so it is on hold; type "
    "scontrol release {job}",
    "Cleaning": "its last run is being cleaned up; wait some seconds",
    "Nodes required for job are DOWN": "the nodes that could run it are down, drained or reserved; "
    "wait, or set launch.slurm.partition",
}


def why_waiting(reason: str, run: str, job: str) -> str:
    """A pending job's reason as a sentence; an unknown one is given as Slurm has it."""
    known = [name for name in REASONS if reason.startswith(name)]
    if not known:
        return f"Slurm says {reason} (see man squeue, JOB REASON CODES)"
    return REASONS[max(known, key=len)].format(run=run, job=job)

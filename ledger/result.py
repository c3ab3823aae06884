"""`result.json`: what a run has measured, written once when it is done or has diverged."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ledger.part import OPTIONAL, Part, WrongValue, is_number

RESULT_SCHEMA = 1
DONE, DIVERGED = "done", "diverged"
FINISHED = (DONE, DIVERGED)  # not to be trained again
LOSS_KEYS = {"causal": "val_nll_causal", "topk": "val_nll_topk"}  # by rule of inference
BITS_KEYS = {"causal": "val_bpb_causal", "topk": "val_bpb_topk"}
BYTE_KEYS = {"bpb": BITS_KEYS["causal"], "bpb_topk": BITS_KEYS["topk"]}  # as an analysis says it


@dataclass(frozen=True, kw_only=True)
class Flops(Part):
    """FLOPs of a run. `extra` has what was spent under each convention."""

    planned: float | None = None  # the budget, under the run's own convention
    spent: float | None = None  # under the run's own convention

    def under(self, convention: str) -> float | None:
        """What was spent, under a convention of `ledger.conventions`."""
        value = self.extra.get(convention)
        return None if value is None else float(value)


@dataclass(frozen=True, kw_only=True)
class Throughput(Part):
    """Speed of the training steps."""

    device: str = ""  # the GPU's name, or cpu
    devices: int = 1  # GPUs, or the threads of all processes (`ledger.devices`)
    tokens_per_s: float | None = None  # of all devices
    flops_per_s: float | None = None  # exact FLOPs, of all devices
    mfu: float | None = None  # exact FLOPs per second over the devices' peak
    seconds: float | None = None  # of the steps that were measured
    threads: int | None = field(default=None, metadata=OPTIONAL)  # of each process on a CPU
    # Of one GPU with so many sequences in one forward; none on a CPU.
    peak_gb: float | None = field(default=None, metadata=OPTIONAL)
    micro_batch: int | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True, kw_only=True)
class Result(Part):
    """A run that is done or has diverged. `extra` has where it comes from: git commit, versions.

    `loss` is empty for a diverged run; its keys are `train` and those of the final validation, in
    nats per token (`val_nll_*`) and bits per byte (`val_bpb_*`).
    """

    run_id: str = ""
    status: str = ""  # done | diverged
    error: str | None = None
    model: str = ""
    size: str = ""
    budget: float | None = None  # FLOPs under `convention`
    convention: str | None = None
    seed: int | None = None
    n_params: int | None = None
    n_params_nonembedding: int | None = None
    unique_layers: int | None = None
    effective_layers: int | None = None
    tokens: int | None = None  # training tokens that were processed
    steps: int | None = None
    epochs: float | None = None
    mean_recursions_train: float | None = None
    flops: Flops = field(default_factory=Flops)
    loss: dict[str, float] = field(default_factory=dict)
    routing: dict[str, Any] | None = None  # of the final validation, for routed models
    kv_statistics: dict[str, Any] | None = None
    throughput: Throughput = field(default_factory=Throughput)
    trunk: str | None = None  # id of the trunk that it branched off
    settings: dict[str, Any] = field(default_factory=dict)  # its identity fields, nested
    recipe: str | None = field(default=None, metadata=OPTIONAL)  # name or file of its laws
    data: dict[str, Any] = field(default_factory=dict)  # name and fingerprint
    finished: str | None = None  # ISO 8601, UTC

    @classmethod
    def read(cls, name: str, value: Any) -> Any:
        parts: dict[str, type[Part]] = {"flops": Flops, "throughput": Throughput}
        if name in parts and isinstance(value, dict):
            return parts[name].from_dict(value)
        if name == "loss":
            for key, one in value.items():
                if not (one is None or is_number(one)):
                    raise WrongValue(f"'loss.{key}' should be a number and is {one!r}")
        return value

    @property
    def done(self) -> bool:
        return self.status == DONE

    @property
    def diverged(self) -> bool:
        return self.status == DIVERGED

    def validation_loss(self, rule: str = "causal") -> float | None:
        """Validation loss in nats per token under a rule of inference: causal or topk."""
        value = self.loss.get(LOSS_KEYS[rule])
        return None if value is None else float(value)

    def bits_per_byte(self, rule: str = "causal") -> float | None:
        """The same in bits per byte of text; None in results of before they were kept."""
        value = self.loss.get(BITS_KEYS[rule])
        return None if value is None else float(value)

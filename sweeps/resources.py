"""What a run asks of a node: GPUs, CPU cores and memory, from an estimate. Imports no torch.

Bytes of device memory for P parameters, with e bytes per number in the compute precision (2 in
bf16, 4 in fp32):

- weights 4 P, and in bf16 their cast copies 2 P; gradients 4 P; the state of the optimizer (two
  moments of AdamW: 8 P);
- activations kept for the backward pass, per token and applied layer
  8 d + e (2 d + 2 h d_h + 2 k d_h + 4 d_ff): the inputs of the two norms in fp32; the norms'
  outputs, q and the output of attention, k and v, and gate, up, silu(gate) and their product;
- logits, their softmax and gradient: (8 + e) V per token whose logits are held (`loss_chunk`).

A routed layer counts the tokens that it takes. Recomputation keeps the inputs (4 d per token) of
each layer or recursion, and the activations of one. `SPARE` is for what the allocator cannot use.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from mor.config import Config, ConfigError
from mor.flops import planned_routing, run_cost
from mor.model.components import layout
from mor.optim.spec import optimizer_of
from sweeps.config import ClusterConfig, SlurmConfig

GPU_MEMORY_GB = {  # of the vendors' data sheets; the smaller one where there are two
    "a100": 40.0,
    "l40s": 48.0,
    "h100": 80.0,
    "h200": 141.0,
    "gh200": 96.0,
    "b200": 180.0,
    "mi300x": 192.0,
    "rtx4090": 24.0,
}
SPARE = 1.15
USABLE = 0.92  # of a GPU's memory: the driver and NCCL have the rest
PROCESS_GB = 1.5  # of a process that has imported torch and holds a corpus
GPU_PROCESS_GB = 8.0  # with CUDA, pinned buffers and data workers
CPUS_PER_GPU = 8
NODE_GPUS = 8  # where neither the cluster nor its profile says


@dataclass(frozen=True)
class Memory:
    """Bytes of device memory that training one configuration takes."""

    weights: float
    gradients: float
    optimizer: float
    activations: float  # of one micro-batch, logits included

    @property
    def state(self) -> float:
        """What FSDP shards over GPUs."""
        return self.weights + self.gradients + self.optimizer

    @property
    def total(self) -> float:
        return SPARE * (self.state + self.activations)

    def per_gpu(self, gpus: int) -> float:
        """Bytes on each of `gpus` that share the state."""
        return SPARE * (self.state / gpus + self.activations)


@dataclass(frozen=True)
class Shape:
    """The resources of one job. One process for each GPU, or one without."""

    nodes: int
    gpus_per_node: int
    cpus_per_task: int
    mem_gb: int | None  # of a node's memory; None: not asked for
    mem_per_cpu_gb: float | None = None
    mem_per_gpu_gb: float | None = None

    @property
    def tasks_per_node(self) -> int:
        return max(1, self.gpus_per_node)

    @property
    def node_gb(self) -> float:
        """The memory that is asked for of a node, GB; 0 where it is not."""
        per_cpu = (self.mem_per_cpu_gb or 0) * self.cpus_per_task * self.tasks_per_node
        return self.mem_gb or per_cpu or (self.mem_per_gpu_gb or 0) * self.gpus_per_node

    @property
    def gpus(self) -> int:
        return self.nodes * self.gpus_per_node


def memory(config: Config, micro_batch: int | None = None) -> Memory:
    """The estimate for a configuration; by default for the micro-batch that it is set to, or the
    whole batch."""
    sequences = micro_batch or _fixed_micro_batch(config) or config.train.batch_size
    counted = run_cost(config).params
    params = counted.total
    width = 2 if config.train.precision == "bf16" else 4
    weights = params * (4 + (2 if width == 2 else 0))
    activations = _activations(config, sequences, width)
    state = float(optimizer_of(config.train).state_bytes(counted))
    return Memory(weights, 4.0 * params, state, activations)


def _fixed_micro_batch(config: Config) -> int | None:
    """Sequences per forward where the configuration sets them; None: all, or what fits (auto)."""
    size = config.runtime.micro_batch
    return size if isinstance(size, int) else None


def _activations(config: Config, sequences: int, width: int) -> float:
    size, seq_len = config.size, config.train.seq_len
    heads, kv_heads = size.n_heads * size.d_head, size.n_kv_heads * size.d_head
    layer = 8 * size.d_model + width * (2 * size.d_model + 2 * heads + 2 * kv_heads + 4 * size.d_ff)
    depths = layout(config.model, size)
    whole = sequences * seq_len
    routed = planned_routing(config.model, config.size, seq_len, sequences).tokens
    unshared = len(depths.prologue) + len(depths.epilogue)
    last = len(depths.recursions) - 1  # a looped model may apply it more often
    blocks = [(len(depths.recursions[min(r, last)]), t) for r, t in enumerate(routed)]
    applied = unshared * whole + sum(length * tokens for length, tokens in blocks)
    if config.runtime.recompute == "layer":
        kept = 4 * size.d_model * applied + layer * whole
    elif config.runtime.recompute == "recursion":
        inputs = 4 * size.d_model * sum(tokens for _, tokens in blocks)
        inner = max(length * tokens for length, tokens in blocks)
        kept = inputs + layer * (unshared * whole + inner)
    else:
        kept = layer * applied
    held = min(config.runtime.loss_chunk or whole, whole)
    return kept + held * config.data.vocab_size * (8 + width)


def on_gpu(config: Config, cluster: ClusterConfig) -> bool:
    """Whether a run of this study trains on a GPU."""
    return config.runtime.device != "cpu" and cluster.gpu != "cpu"


def shape_of(config: Config, slurm: SlurmConfig, cluster: ClusterConfig) -> Shape:
    """The resources of one run: what is set for its size or for all, else what the estimate says.

    One GPU, unless the state and a micro-batch of one sequence do not fit: then, under FSDP, the
    smallest power of two that shares them, over several nodes if need be. Raises ConfigError where
    a single sequence fits on no number of GPUs, and where DDP would copy what does not fit.
    """
    given = slurm.for_size(config.size.name)
    gpus = _gpus(config, cluster) if given.gpus_per_node is None else None
    per_node = given.gpus_per_node or 0
    nodes = given.nodes or 1
    if gpus is not None:
        node_gpus = cluster.node_gpus or NODE_GPUS
        nodes = given.nodes or max(1, math.ceil(gpus / node_gpus))
        per_node = math.ceil(gpus / nodes)
    cpus = given.cpus_per_task or max(config.runtime.threads, _cpus_of_gpus(per_node, cluster))
    if given.mem_per_cpu_gb or given.mem_per_gpu_gb:
        return Shape(nodes, per_node, cpus, None, given.mem_per_cpu_gb, given.mem_per_gpu_gb)
    if isinstance(given.mem_gb, str):  # none
        return Shape(nodes, per_node, cpus, None)
    mem = given.mem_gb or math.ceil(_host_gb(config, per_node > 0) / nodes)
    return Shape(nodes, per_node, cpus, mem)


def _cpus_of_gpus(gpus: int, cluster: ClusterConfig) -> int:
    """Cores for one of a node's GPUs: its share of the node, at most CPUS_PER_GPU."""
    if gpus == 0:
        return 0
    share = (cluster.node_cpus or math.inf) // max(gpus, cluster.node_gpus or 0)
    return int(max(1, min(CPUS_PER_GPU, share)))


def _less_memory(config: Config) -> str:
    return "" if config.runtime.recompute in ("auto", "layer") else "runtime.recompute=layer, "


def _gpus(config: Config, cluster: ClusterConfig) -> int:
    if not on_gpu(config, cluster):
        return 0
    available = 1e9 * USABLE * (cluster.gpu_memory_gb or GPU_MEMORY_GB[cluster.gpu])
    sequences = _fixed_micro_batch(config) or 1
    smallest = memory(config, sequences)
    if config.runtime.recompute == "auto" and smallest.activations * SPARE >= available:
        layers = replace(config.runtime, recompute="layer")
        smallest = memory(replace(config, runtime=layers), sequences)
    if smallest.activations * SPARE >= available:
        raise ConfigError(
            "size",
            config.size.name,
            f"a micro-batch of {sequences} needs about "
            f"{smallest.activations / 1e9:,.0f} GB of activations, a {cluster.gpu} has "
            f"{available / 1e9:,.0f} GB",
            f"type {_less_memory(config)}a smaller runtime.loss_chunk or a larger cluster.gpu",
        )
    if config.runtime.parallel == "ddp" and smallest.per_gpu(1) > available:
        raise ConfigError(
            "runtime.parallel",
            "ddp",
            f"size {config.size.name} needs about {smallest.per_gpu(1) / 1e9:,.0f} GB on each GPU, "
            f"a {cluster.gpu} has {available / 1e9:,.0f} GB",
            "type runtime.parallel=fsdp, which shares it over GPUs",
        )
    gpus = 1
    while smallest.per_gpu(gpus) > available:
        gpus *= 2
    return gpus


def _host_gb(config: Config, with_gpu: bool) -> float:
    """Memory of the host, GB: the process, and two copies of what a checkpoint holds."""
    params = run_cost(config).params
    checkpoint_gb = (4 * params.total + optimizer_of(config.train).state_bytes(params)) / 1e9
    if with_gpu:
        return GPU_PROCESS_GB + 2 * checkpoint_gb
    return PROCESS_GB + memory(config).total / 1e9 + checkpoint_gb

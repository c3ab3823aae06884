"""Memory estimates against what autograd keeps, and the resources that follow from them."""

from __future__ import annotations

import dataclasses

import pytest

from ledger.store import Ledger
from mor.config import Config, ConfigError, DataConfig, RuntimeConfig, SizeConfig, TrainConfig
from sweeps.backends.slurm.jobs import nodes_left
from sweeps.config import ClusterConfig, SlurmConfig
from sweeps.plan import build_plan
from sweeps.resources import memory, shape_of

MEDIUM = SizeConfig("medium", 8, 128, n_heads=4, n_kv_heads=2, d_head=32, d_ff=384)
BIG = SizeConfig("7b", 32, 4096, n_heads=32, n_kv_heads=8, d_head=128, d_ff=14336)
H100 = ClusterConfig("h100")


def config(model, size=MEDIUM, precision="bf16", **runtime) -> Config:
    train = TrainConfig(batch_size=4, seq_len=256, precision=precision)
    data = DataConfig(vocab_size=512)
    return Config(model, size, data, train, runtime=RuntimeConfig(**runtime))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("architecture", ["vanilla", "recursive", "mor"])
@pytest.mark.parametrize("recompute", ["none", "layer"])
def test_activations_are_what_autograd_keeps(architectures, architecture, precision, recompute):
    import torch

    from mor.model.transformer import Transformer
    from tests.memory import kept_for_backward

    made = config(architectures[architecture], precision=precision, recompute=recompute)
    model = Transformer(made.model, made.size, made.data.vocab_size, seed=0)
    model.set_speed(made.runtime)
    tokens = torch.randint(512, (4, 256))
    with (
        kept_for_backward(model) as kept,
        torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"),
    ):
        out = model(tokens, tokens, step=0, keep_logits=False)
    assert out.total_loss.requires_grad
    copies = 2 * sum(p.numel() for p in model.parameters()) if precision == "bf16" else 0
    measured = sum(kept.values()) - copies  # cast copies of the weights stand under weights
    estimate = memory(made).activations
    if recompute == "layer":  # the layer in hand comes on top of what is kept
        whole = dataclasses.replace(made, runtime=RuntimeConfig(recompute="none"))
        assert measured < estimate < memory(whole).activations
    else:
        assert 0.6 < estimate / measured < 1.6, measured


def test_state_is_sixteen_bytes_a_parameter_and_two_of_the_cast_copy(architectures):
    from mor.flops import run_cost

    made = config(architectures["vanilla"], precision="fp32")
    assert memory(made).state == 16 * run_cost(made).params.total
    half = config(architectures["vanilla"], precision="bf16")
    assert memory(half).state == 18 * run_cost(half).params.total


def test_activations_grow_with_the_micro_batch_and_shrink_with_routing(architectures):
    whole = memory(config(architectures["recursive"])).activations
    assert memory(config(architectures["recursive"], micro_batch=2)).activations == whole / 2
    assert memory(config(architectures["mor"])).activations < whole


def test_one_gpu_unless_the_state_does_not_fit(architectures):
    vanilla = architectures["vanilla"]
    for size, gpus in ((MEDIUM, 1), (BIG, 4)):
        shape = shape_of(config(vanilla, size, parallel="fsdp"), SlurmConfig(), H100)
        assert (shape.nodes, shape.gpus_per_node) == (1, gpus)
    small = dataclasses.replace(H100, gpu_memory_gb=24, node_gpus=4)
    shape = shape_of(config(vanilla, BIG, parallel="fsdp"), SlurmConfig(), small)
    assert shape.nodes > 1
    assert shape.gpus_per_node == 4
    assert shape.tasks_per_node == 4
    large = config(vanilla, BIG, micro_batch=64, recompute="none", parallel="fsdp")
    with pytest.raises(ConfigError, match=r"size=7b: a micro-batch of 64 .*recompute=layer"):
        shape_of(large, SlurmConfig(), small)
    auto = dataclasses.replace(large, runtime=dataclasses.replace(large.runtime, recompute="auto"))
    layers = dataclasses.replace(
        large, runtime=dataclasses.replace(large.runtime, recompute="layer")
    )
    assert shape_of(auto, SlurmConfig(), small) == shape_of(layers, SlurmConfig(), small)
    with pytest.raises(ConfigError, match=r"runtime.parallel=ddp: size 7b .*parallel=fsdp"):
        shape_of(config(vanilla, BIG), SlurmConfig(), H100)


def test_without_a_gpu_threads_and_the_memory_of_training(architectures):
    made = config(architectures["vanilla"], device="cpu", threads=3)
    shape = shape_of(made, SlurmConfig(), H100)
    assert (shape.gpus_per_node, shape.cpus_per_task, shape.nodes) == (0, 3, 1)
    assert 2 <= shape.mem_gb <= 4


def test_a_size_has_its_own_resources_before_those_for_all(architectures):
    slurm = SlurmConfig(mem_gb=5, cpus_per_task=3, per_size={"medium": {"mem_gb": 7}})
    shape = shape_of(config(architectures["vanilla"]), slurm, H100)
    assert (shape.mem_gb, shape.cpus_per_task) == (7, 3)
    with pytest.raises(ConfigError, match=r"launch.slurm.per_size.medium.gpu"):
        SlurmConfig(per_size={"medium": {"gpu": 7}}).for_size("medium")


def test_the_papers_sizes_fit_one_h100(architectures):
    import yaml

    from tests.conftest import REPO

    for name in ("135m", "360m", "730m", "1.7b"):
        values = yaml.safe_load((REPO / "conf" / "size" / f"{name}.yaml").read_text())
        made = dataclasses.replace(
            config(architectures["vanilla"], SizeConfig(**values)),
            data=DataConfig(vocab_size=49152),
            train=TrainConfig(),
        )
        assert shape_of(made, SlurmConfig(), H100).gpus == 1


@pytest.mark.parametrize("architecture", ["vanilla", "mor"])
def test_a_plan_of_1e21_flops_of_a_7b_model_is_sound(architectures, architecture, tmp_path):
    """Four nodes of eight GPUs a run: its memory, tokens, hours and time limit agree."""
    train = TrainConfig(batch_size=1024, seq_len=2048)
    runtime = RuntimeConfig(parallel="fsdp", device="cuda")
    data = DataConfig(vocab_size=49152)
    big = Config(architectures[architecture], BIG, data, train, budget=1e21, runtime=runtime)
    cluster, ledger = dataclasses.replace(H100, node_gpus=8), Ledger(tmp_path)
    plan = build_plan("big", [big], ledger, cluster)
    slurm = SlurmConfig(per_size={"7b": {"nodes": 4, "gpus_per_node": 8}})
    shape = shape_of(big, slurm, cluster)
    assert (shape.nodes, shape.gpus) == (4, 32)
    assert memory(big, 1).per_gpu(32) < 0.92 * 80e9
    assert memory(big, 1).per_gpu(1) > 0.92 * 80e9 or architecture == "mor"  # which ties weights
    [run] = plan.runs
    assert run.flops["paper"] == pytest.approx(1e21, rel=1e-3)
    exact = run.flops["exact"]
    passes = {"vanilla": 1, "mor": 4}[architecture]  # causal, top-k, at each smaller depth
    checks = passes * train.val_tokens * exact / run.tokens / 3
    assert 0.9 < 6 * run.cost.params.total * run.tokens / exact < 1.1 or architecture == "mor"
    assert run.gpu_hours == pytest.approx((exact + checks) / (0.4 * 989e12) / 3600)
    nodes = nodes_left(plan.graph, lambda task: shape, {})
    assert sum(node.seconds for node in nodes) / 3600 == pytest.approx(run.gpu_hours / 32, rel=0.01)

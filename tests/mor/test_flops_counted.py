"""`exact` against the FLOPs that torch counts, forward and forward + backward, to 0.1 %.

The counter sees the full square of attention (math kernel) where `exact` counts causal pairs, so
that term alone is compared at its full square; ragged sequences are counted as they are padded.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mor.config import ModelConfig, RelaxationConfig, RouterConfig, SizeConfig
from mor.flops import Routed, cost_model, planned_routing
from mor.model.transformer import Transformer

SIZE = SizeConfig("s", n_layers=5, d_model=32, n_heads=4, n_kv_heads=2, d_head=8, d_ff=80)
VOCAB, BATCH, SEQ = 61, 3, 40
EXPERT = RouterConfig("expert")
TOKEN = RouterConfig("token", activation="softmax", alpha=1.0)
RANDOM = {"network": "random", "activation": "none"}


def relax(kind: str) -> RelaxationConfig:
    return RelaxationConfig(kind, rank=4, prompt_length=7)


VARIANTS = {
    "vanilla": ModelConfig("m"),
    "recursive": ModelConfig("m", "recursive", 3),
    "recursive_cycle": ModelConfig("m", "recursive", 2, sharing="cycle"),
    "recursive_sequence": ModelConfig("m", "recursive", 2, sharing="middle_sequence"),
    "recursive_shared": ModelConfig("m", "recursive", 3, kv="shared"),
    "expert": ModelConfig("m", "mor", 3, router=EXPERT),
    "expert_2": ModelConfig("m", "mor", 2, router=EXPERT),
    "expert_shared": ModelConfig("m", "mor", 3, kv="shared", router=EXPERT),
    "expert_mlp": ModelConfig("m", "mor", 3, router=replace(EXPERT, network="mlp")),
    "expert_aux": ModelConfig("m", "mor", 3, router=replace(EXPERT, sampling="aux_router")),
    "expert_aux_mlp": ModelConfig(
        "m", "mor", 3, router=replace(EXPERT, sampling="aux_router", network="mlp")
    ),
    "expert_wide": ModelConfig("m", "mor", 3, router=replace(EXPERT, network="wide_mlp")),
    "expert_aux_wide": ModelConfig(
        "m", "mor", 3, router=replace(EXPERT, sampling="aux_router", network="wide_mlp")
    ),
    "expert_plain": ModelConfig("m", "mor", 3, router=replace(EXPERT, gating="plain")),
    "expert_random": ModelConfig("m", "mor", 3, router=replace(EXPERT, **RANDOM)),
    "expert_hybrid": ModelConfig("m", "mor", 3, kv="hybrid", router=EXPERT),
    "expert_shared_few": ModelConfig(
        "m", "mor", 3, kv="shared", router=EXPERT, capacity=(0.5, 0.5, 0.25)
    ),
    "expert_hybrid_few": ModelConfig(
        "m", "mor", 3, kv="hybrid", router=EXPERT, capacity=(0.6, 0.3, 0.3)
    ),
    "expert_lora": ModelConfig("m", "mor", 3, router=EXPERT, relaxation=relax("lora")),
    "expert_shared_lora": ModelConfig(
        "m", "mor", 3, kv="shared", router=EXPERT, relaxation=relax("lora")
    ),
    "expert_prompt": ModelConfig("m", "mor", 3, router=EXPERT, relaxation=relax("prompt")),
    "recursive_dora": ModelConfig("m", "recursive", 3, relaxation=relax("dora")),
    "recursive_encoding": ModelConfig("m", "recursive", 3, relaxation=relax("encoding")),
    "recursive_scaling": ModelConfig("m", "recursive", 3, relaxation=relax("scaling")),
    "recursive_documents": ModelConfig("m", "recursive", 3, document_mask=True),
    "vanilla_cycle": ModelConfig("m", kv="cycle"),
    "vanilla_sequence": ModelConfig("m", kv="sequence", kv_share=3),
    "vanilla_middle_cycle": ModelConfig("m", kv="middle_cycle"),
    "recursive_sequence_reused": ModelConfig(
        "m", "recursive", 2, sharing="sequence", kv="sequence"
    ),
    "token_random": ModelConfig("m", "mor", 3, router=replace(TOKEN, **RANDOM)),
    "token_lora": ModelConfig("m", "mor", 3, router=TOKEN, relaxation=relax("lora")),
    "token": ModelConfig("m", "mor", 3, router=TOKEN),
    "token_shared": ModelConfig("m", "mor", 3, kv="shared", router=TOKEN),
}


def full_square(model: ModelConfig, routed) -> Routed:
    """The routed work with every pair of a (padded) sequence in place of the causal ones."""
    pairs = []
    for r, (tokens, span) in enumerate(zip(routed.tokens, routed.spans, strict=True)):
        longest = max(span.counts)
        if model.kv in ("shared", "hybrid") and r > 0:
            padded = tokens if model.router.type == "expert" else BATCH * longest
            pairs.append(padded * max(routed.spans[0].counts))
        else:
            pairs.append(BATCH * longest**2)
    return Routed(BATCH * SEQ, tuple(map(float, routed.tokens)), tuple(map(float, pairs)))


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("name", VARIANTS)
def test_exact_is_what_torch_counts(name, backward):
    model = VARIANTS[name]
    net = Transformer(model, SIZE, VOCAB, separator=5)
    tokens = torch.randint(VOCAB, (BATCH, SEQ), generator=torch.Generator().manual_seed(1))
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        out = net(tokens, tokens, step=0)
        if backward:
            out.total_loss.backward()
    cost = cost_model(model, SIZE, VOCAB, "exact")
    # (2 S - 1 + 1) / 2 = S pairs per token of whole sequences: their full square, too.
    analytic = cost.flops(full_square(model, out.routed), 2 * SEQ - 1)
    if not backward:
        analytic = forward_share(model, analytic, out.routed)
    analytic += norms_of_dora(model)
    assert analytic == pytest.approx(counter.get_total_flops(), rel=1e-3)


@pytest.mark.parametrize("kv", ["recursion", "shared", "hybrid"])
@pytest.mark.parametrize("capacity", [(1.0, 0.5, 0.25), (0.5, 0.5, 0.25), (0.25, 0.25, 0.25)])
def test_pairs_are_those_that_the_spans_see(kv, capacity):
    """Where all take the same tokens they are the causal pairs themselves; on average, else."""
    model = ModelConfig("m", "mor", 3, kv=kv, router=EXPERT, capacity=capacity)
    net = Transformer(model, SIZE, VOCAB)
    tokens = torch.randint(VOCAB, (BATCH, SEQ), generator=torch.Generator().manual_seed(1))
    routed = net(tokens, step=0).routed
    planned = planned_routing(model, SIZE, SEQ, BATCH)
    assert planned.tokens == tuple(routed.tokens)
    assert planned.pairs == tuple(routed.pairs)
    first = routed.spans[0]
    for r, span in enumerate(routed.spans):
        keys = first.grid() if kv != "recursion" and r else span.grid()  # (B, n)
        seen = keys[:, None] <= span.grid()[:, :, None]  # (B, queries, keys)
        if keys.shape == span.grid().shape:
            assert routed.pairs[r] == int(seen.sum())
        else:
            assert span.tokens <= int(seen.sum()) <= seen.numel()
            assert routed.pairs[r] == BATCH * seen.shape[1] * (seen.shape[2] + 1) / 2


def forward_share(model: ModelConfig, total: float, routed) -> float:
    """A third, but for routers that read detached states: they have no input gradient."""
    if model.router.sampling != "aux_router" or model.router.type != "expert":
        return total / 3
    d = SIZE.d_model
    first = {"linear": d, "mlp": 2 * d * d, "wide_mlp": 4 * d * d}[model.router.network]
    scored = BATCH * SEQ + sum(routed.tokens[:-1])
    return (total + 2.0 * first * scored) / 3


def norms_of_dora(model: ModelConfig) -> float:
    """B A of every adapted q and v, once per forward pass: known and not counted in `exact`."""
    if model.relaxation.type != "dora":
        return 0.0
    outputs = SIZE.d_head * (SIZE.n_heads + SIZE.n_kv_heads)
    adapted = model.n_recursions  # one layer in the block
    return 2.0 * model.relaxation.rank * SIZE.d_model * outputs * adapted

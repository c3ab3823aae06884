"""FLOPs against the paper's tables, the counted ones, and by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mor.config import (
    Config,
    DataConfig,
    ModelConfig,
    RelaxationConfig,
    RouterConfig,
    SizeConfig,
    TrainConfig,
)
from mor.flops import Routed, cost_model, count_params, planned_routing, run_cost

VOCAB = 49152


@pytest.fixture
def sizes(paper_table) -> dict[str, SizeConfig]:
    names = ("n_layers", "d_model", "n_heads", "n_kv_heads", "d_head", "d_ff")
    return {
        row["size"]: SizeConfig(row["size"], *(int(row[name]) for name in names))
        for row in paper_table("architecture")
    }


def significant(text: str) -> int:
    """Decimals printed in a number such as 16.1e9."""
    mantissa = text.split("e")[0]
    return len(mantissa.split(".")[1]) if "." in mantissa else 0


def test_all_token_counts_of_table_9_to_their_printed_digits(paper_table, sizes, architectures):
    rows = paper_table("table9_isoflop")
    assert len(rows) == 36
    for row in rows:
        config = Config(
            architectures[row["arch"]], sizes[row["base"]], DataConfig(vocab_size=VOCAB)
        )
        cost = run_cost(config)
        tokens = float(row["flops_stated"]) / cost.step_flops["paper"] * cost.tokens_per_step
        digits = significant(row["tokens"])
        assert round(tokens / 1e9, digits) == float(row["tokens"].split("e")[0]), row


def test_parameters_of_the_paper(paper_table, sizes, architectures):
    for row in paper_table("architecture"):
        counted = count_params(architectures["vanilla"], sizes[row["size"]], VOCAB).nonembedding
        assert counted == pytest.approx(float(row["n_nonemb"]), rel=1e-3)
        nr3 = count_params(architectures["recursive"], sizes[row["size"]], VOCAB).nonembedding
        assert nr3 == pytest.approx(float(row["n_nonemb_nr3"]), rel=0.015)


def test_parameters_of_every_sharing(paper_table, sizes):
    """The unshared layers and the rounding of app. A.1: 1+14+1, 10, 15 ..."""
    for row in paper_table("sharing_10b"):
        if row["sharing"] == "-":
            continue
        layers = row["unique_layers"].split("+")
        model = ModelConfig(
            "recursive",
            "recursive",
            int(row["recursions"]),
            sharing=row["sharing"],
            block_layers=int(layers[len(layers) // 2]),
        )
        counted = count_params(model, sizes[row["base"]], VOCAB).nonembedding
        assert counted == pytest.approx(float(row["n_nonemb"]), rel=0.02), row


def test_vanilla_6nd_is_six_times_parameters_times_tokens(sizes, architectures):
    config = Config(architectures["vanilla"], sizes["360M"], DataConfig(vocab_size=VOCAB))
    cost = run_cost(config)
    assert cost.step_flops["6nd"] == 6 * cost.params.total * cost.tokens_per_step


def test_exact_by_hand(tiny):
    """One layer, one sequence: three times two FLOPs for each weight and each causal pair."""
    size = replace(tiny, n_layers=1)
    seq_len, vocab = 10, 7
    weights = (
        2 * size.d_model * size.n_heads * size.d_head
        + 2 * size.d_model * size.n_kv_heads * size.d_head
        + 3 * size.d_model * size.d_ff
        + size.d_model * vocab
    )
    pairs = seq_len * (seq_len + 1) / 2
    by_hand = 6 * weights * seq_len + 3 * 2 * 2 * size.n_heads * size.d_head * pairs
    model = ModelConfig("vanilla")
    counted = cost_model(model, size, vocab, "exact").flops(
        planned_routing(model, size, seq_len), seq_len
    )
    assert counted == by_hand


@pytest.mark.parametrize("convention", ["paper", "exact", "6nd"])
@pytest.mark.parametrize("kv", ["recursion", "shared"])
def test_a_router_that_takes_all_costs_a_recursive_model(tiny, convention, kv):
    recursive = ModelConfig("recursive", "recursive", 3, kv=kv)
    mor = replace(recursive, architecture="mor", capacity=(1.0,) * 3, router=RouterConfig("expert"))
    seq_len = 64
    costs = [
        cost_model(model, tiny, 256, convention).flops(
            planned_routing(model, tiny, seq_len), seq_len
        )
        for model in (recursive, mor)
    ]
    per_router = {"paper": 0, "exact": 6, "6nd": 6}[convention] * tiny.d_model * seq_len
    assert costs[1] - costs[0] == pytest.approx(3 * per_router)


@pytest.mark.parametrize("convention", ["paper", "exact", "6nd"])
def test_flops_add_up_over_sequences(tiny, architectures, convention):
    """The meter may add micro-batches: the cost of a sum is the sum of the costs."""
    model = architectures["mor"]
    cost = cost_model(model, tiny, 256, convention)
    a, b = planned_routing(model, tiny, 32, 3), Routed(32, (32, 5, 1), (32 * 33 / 2, 15, 1))
    assert cost.flops(a + b, 32) == pytest.approx(cost.flops(a, 32) + cost.flops(b, 32), rel=1e-12)


def test_the_paper_counts_capacity_squared_in_attention(tiny, architectures):
    seq_len, d = 60, tiny.d_model
    model = architectures["mor"]
    cost = cost_model(model, tiny, 256, "paper")
    by_hand = 0.0
    for capacity in (1, 1, 1, 2 / 3, 1 / 3):  # two unshared layers, one shared, three recursions
        linear = 2 * (4 * d * d + 3 * d * tiny.d_ff)
        by_hand += seq_len * (capacity * linear + capacity**2 * 2 * seq_len * d)
    planned = planned_routing(model, tiny, seq_len, nominal=True)
    assert cost.flops(planned, seq_len) == pytest.approx(by_hand, rel=1e-12)


def test_planned_routing_takes_whole_tokens(tiny, architectures):
    planned = planned_routing(architectures["mor"], tiny, 32)
    assert planned.tokens == (32, 21, 10)
    assert planned.pairs == (32 * 33 / 2, 21 * 22 / 2, 55)


def test_runs_of_one_step_cost_share_tokens(tiny, architectures):
    config = Config(architectures["mor"], tiny, DataConfig(), TrainConfig(batch_size=4, seq_len=32))
    cost = run_cost(config)
    assert cost.tokens_per_step == 128
    assert cost.steps(10.4 * cost.step_flops["exact"], "exact") == 10


@pytest.mark.parametrize("kind", ["encoding", "scaling", "lora", "dora", "prompt"])
def test_relaxations_cost_six_per_weight_and_nothing_in_the_papers_counting(tiny, kind):
    """Each recursion passes its own weights once, so unique weights are weights passed."""
    plain = ModelConfig("recursive", "recursive", 3)
    relaxed = replace(plain, relaxation=RelaxationConfig(kind, rank=4, prompt_length=9))
    routed, extra = planned_routing(plain, tiny, 32), count_params(relaxed, tiny, 256).relaxation
    assert extra > 0
    for convention, per_weight in (("6nd", 6), ("paper", 0)):
        costs = [cost_model(m, tiny, 256, convention).flops(routed, 32) for m in (plain, relaxed)]
        assert costs[1] - costs[0] == pytest.approx(per_weight * extra * 32, abs=1e-3)


def test_a_depth_that_reads_keys_and_values_costs_less_by_their_maps(tiny):
    seq_len, d, kv = 32, tiny.d_model, tiny.n_kv_heads * tiny.d_head
    own, reads = ModelConfig("vanilla"), ModelConfig("vanilla", kv="sequence")
    routed, reading = planned_routing(own, tiny, seq_len), 2  # depths 1 and 3 of 5
    saved = {"paper": 4 * d * d, "exact": 6 * 2 * d * kv, "6nd": 6 * 2 * d * kv}
    for convention, each in saved.items():
        a, b = (cost_model(m, tiny, 256, convention).flops(routed, seq_len) for m in (own, reads))
        assert a - b == pytest.approx(reading * each * seq_len)
    fewer = count_params(own, tiny, 256).total - count_params(reads, tiny, 256).total
    assert fewer == reading * 2 * d * kv


@pytest.mark.parametrize("convention", ["paper", "exact", "6nd"])
def test_hybrid_computes_like_recursion_and_reads_like_shared(tiny, architectures, convention):
    mor, seq_len = architectures["mor"], 60
    kinds = {kv: replace(mor, kv=kv) for kv in ("recursion", "shared", "hybrid")}
    linear = {kv: cost_model(m, tiny, 256, convention).per_token for kv, m in kinds.items()}
    pairs = {kv: planned_routing(m, tiny, seq_len).pairs for kv, m in kinds.items()}
    assert linear["hybrid"] == linear["recursion"] > linear["shared"]
    assert pairs["hybrid"] == pairs["shared"] > pairs["recursion"]

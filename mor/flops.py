"""Analytic parameters and FLOPs, per component, per depth and per routed token. No torch.

Three conventions, each linear in the tokens and pairs that were routed at each recursion:

- `paper` (arXiv 2507.10524 app. C, worked back from its schedules and Table 9): forward only,
  2 FLOPs per weight, K and V counted as if full heads, 2 S d for attention (causal half); no
  embedding, head, norm or router.
- `exact`: forward and backward of every linear map that is executed (GQA as it is, LM head,
  routers, relaxations) and of the S(S+1)/2 causal pairs of attention. The backward of a matmul
  costs two more.
- `6nd`: 6 N D with N the weights that a token passes through: a shared layer counts each time, a
  routed one by the share of tokens that it takes, the tied embedding once, as the head. For a
  vanilla model this is 6 x parameters x tokens.

A sequence of n routed tokens has n(n+1)/2 causal pairs; the paper's n^2 is 2 pairs - n. Not
counted: `document_mask` (pairs across documents count as if they were seen), DoRA's norms of the
weights (2 rank FLOPs per weight and forward pass, whatever the tokens).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from mor.config import Config, ModelConfig, SizeConfig
from mor.model.sharing import capacities, computes_kv, computing_layers, layout, selected

BACKWARD = 2  # FLOPs of the backward of a matmul over those of its forward
ROUTER_WIDTH = {"mlp": 2, "wide_mlp": 4}  # hidden width of a router, in d


@dataclass(frozen=True)
class Params:
    """Parameters per component; tied weights are counted once."""

    embedding: int  # also the LM head (tied)
    attention: int
    mlp: int
    norm: int
    router: int
    relaxation: int = 0

    @property
    def nonembedding(self) -> int:
        return self.attention + self.mlp + self.norm + self.router + self.relaxation

    @property
    def total(self) -> int:
        return self.embedding + self.nonembedding


@dataclass(frozen=True)
class Routed:
    """Work of some sequences: tokens and causal pairs routed at each recursion.

    `tokens[r]` is summed over the sequences; `pairs[r]` sums n(n+1)/2 over sequences of n routed
    tokens, or, where a recursion reads the shared keys of all S tokens, n (S+1)/2.
    `processed` counts the tokens that entered the model.
    """

    processed: float
    tokens: tuple[float, ...]
    pairs: tuple[float, ...]

    def __add__(self, other: Routed) -> Routed:
        return Routed(
            self.processed + other.processed,
            tuple(a + b for a, b in zip(self.tokens, other.tokens, strict=True)),
            tuple(a + b for a, b in zip(self.pairs, other.pairs, strict=True)),
        )


def attention_params(size: SizeConfig) -> int:
    """Weights of q, k, v and o of one layer."""
    return 2 * size.d_model * size.d_head * (size.n_heads + size.n_kv_heads)


def kv_params(size: SizeConfig) -> int:
    """Weights of k and v of one layer."""
    return 2 * size.d_model * size.d_head * size.n_kv_heads


def mlp_params(size: SizeConfig) -> int:
    """Weights of gate, up and down of one layer."""
    return 3 * size.d_model * size.d_ff


def router_params(model: ModelConfig, size: SizeConfig) -> int:
    """Weights of one router: linear, or Linear(d, w d), GELU, Linear(w d, out)."""
    router, d = model.router, size.d_model
    if router.type == "none" or router.network == "random":
        return 0
    out = model.n_recursions if router.type == "token" else 1
    if router.network == "linear":
        return d * out
    return ROUTER_WIDTH[router.network] * (d * d + d * out)


def n_routers(model: ModelConfig) -> int:
    """One router for each recursion under expert choice (two with an auxiliary one), else one."""
    if model.router.network == "random":
        return 0
    if model.router.type == "expert":
        return model.n_recursions * (2 if model.router.sampling == "aux_router" else 1)
    return 1 if model.router.type == "token" else 0


def relaxation_params(model: ModelConfig, size: SizeConfig, computes: bool) -> int:
    """Parameters that a recursion adds to one of its depths; `computes` keys and values or not."""
    kind, rank, d = model.relaxation.type, model.relaxation.rank, size.d_model
    outputs = [size.n_heads * size.d_head] + [size.n_kv_heads * size.d_head] * computes  # q, v
    if kind in ("lora", "dora"):
        magnitudes = sum(outputs) if kind == "dora" else 0
        return sum(rank * (d + out) for out in outputs) + magnitudes
    if kind == "prompt":
        return 2 * model.relaxation.prompt_length * size.n_kv_heads * size.d_head + 1
    return 0


def vector_params(model: ModelConfig, size: SizeConfig) -> int:
    """Parameters that a recursion has once, whatever its depths: its encoding or scale."""
    return size.d_model if model.relaxation.type in ("encoding", "scaling") else 0


def count_params(model: ModelConfig, size: SizeConfig, vocab_size: int) -> Params:
    """Unique parameters of a model, by component."""
    depths = layout(model, size)
    layers, computing = depths.unique_layers, len(computing_layers(model, depths))
    relaxed = [
        relaxation_params(model, size, own) for block in computes_kv(model, depths) for own in block
    ]
    return Params(
        embedding=vocab_size * size.d_model,
        attention=layers * attention_params(size) - (layers - computing) * kv_params(size),
        mlp=layers * mlp_params(size),
        norm=(2 * layers + 1) * size.d_model,
        router=n_routers(model) * router_params(model, size),
        relaxation=sum(relaxed) + model.n_recursions * vector_params(model, size),
    )


def planned_routing(
    model: ModelConfig, seq_len: int, sequences: float = 1.0, nominal: bool = False
) -> Routed:
    """The work that is planned for sequences of `seq_len` tokens.

    Expert choice routes max(1, int(c S)) tokens, or c S when `nominal` (the paper's counting);
    token choice is counted as if perfectly balanced.
    """
    tokens, pairs = [], []
    for r, capacity in enumerate(capacities(model)):
        exact = model.router.type == "expert" and not nominal
        n: float = selected(capacity, seq_len) if exact else capacity * seq_len
        reach = seq_len if model.kv in ("shared", "hybrid") and r > 0 else n
        tokens.append(n * sequences)
        pairs.append(n * (reach + 1) / 2 * sequences)
    return Routed(seq_len * sequences, tuple(tokens), tuple(pairs))


@dataclass(frozen=True)
class CostModel:
    """FLOPs of a model under one convention: a sum over what was routed.

    `per_token[r]` and `per_pair[r]` are the FLOPs of one routed token and of one causal pair at
    recursion r, all layers of its block together; `fixed` is spent on every token processed and
    `fixed_pair` on every causal pair of whole sequences (the unshared layers).
    """

    convention: str
    per_token: tuple[float, ...]
    per_pair: tuple[float, ...]
    router_per_token: tuple[float, ...]  # on the tokens that are active before recursion r
    fixed: float
    fixed_pair: float

    def flops(self, routed: Routed, seq_len: int) -> float:
        """FLOPs of `routed`, whose sequences hold `seq_len` tokens each."""
        active = (routed.processed, *routed.tokens)
        total = self.fixed * routed.processed
        total += self.fixed_pair * routed.processed * (seq_len + 1) / 2
        for r, (tokens, pairs) in enumerate(zip(routed.tokens, routed.pairs, strict=True)):
            total += self.per_token[r] * tokens + self.per_pair[r] * pairs
            total += self.router_per_token[r] * active[r]
        return total


@lru_cache(maxsize=4096)
def cost_model(model: ModelConfig, size: SizeConfig, vocab_size: int, convention: str) -> CostModel:
    """The FLOPs of one architecture under `convention` (paper | exact | 6nd)."""
    depths = layout(model, size)
    unshared = len(depths.prologue) + len(depths.epilogue)
    layer = {"paper": _paper_layer, "exact": _exact_layer, "6nd": _6nd_layer}[convention]
    token, pair = layer(size, True)
    per_token, per_pair = [], []
    for block in computes_kv(model, depths):
        tokens = [
            layer(size, own)[0] + _relaxation_token(model, size, own, convention) for own in block
        ]
        per_token.append(sum(tokens) + _vector_token(model, size, convention))
        per_pair.append(len(block) * pair)
    return CostModel(
        convention,
        tuple(per_token),
        tuple(per_pair),
        tuple(_router_per_token(model, size, convention)),
        fixed=unshared * token + _head_per_token(size, vocab_size, convention),
        fixed_pair=unshared * pair,
    )


def _paper_layer(size: SizeConfig, computes: bool) -> tuple[float, float]:
    """(FLOPs per token, per pair): 2 (4 d^2 + 3 d d_ff) + 2 d (2 pairs - tokens)."""
    d = size.d_model
    linear = 2 * (4 * d * d + 3 * d * size.d_ff) - (0 if computes else 4 * d * d)
    return linear - 2 * d, 4 * d


def _exact_layer(size: SizeConfig, computes: bool) -> tuple[float, float]:
    weights = attention_params(size) + mlp_params(size)
    if not computes:
        weights -= kv_params(size)
    factor = 1 + BACKWARD
    return factor * 2 * weights, factor * 4 * size.n_heads * size.d_head


def _6nd_layer(size: SizeConfig, computes: bool) -> tuple[float, float]:
    weights = attention_params(size) + mlp_params(size) + 2 * size.d_model
    if not computes:
        weights -= kv_params(size)
    return 6 * weights, 0


def _relaxation_token(
    model: ModelConfig, size: SizeConfig, computes: bool, convention: str
) -> float:
    """FLOPs per token of what a recursion adds to one depth. `paper` knows plain layers only."""
    if convention == "paper":
        return 0
    if convention == "6nd" or model.relaxation.type not in ("lora", "dora", "prompt"):
        return 6 * relaxation_params(model, size, computes)
    if model.relaxation.type == "prompt":  # attention to every key of the prompt
        pairs = model.relaxation.prompt_length
        return (1 + BACKWARD) * 4 * size.n_heads * size.d_head * pairs
    lora = replace(model, relaxation=replace(model.relaxation, type="lora"))
    return (1 + BACKWARD) * 2 * relaxation_params(lora, size, computes)


def _vector_token(model: ModelConfig, size: SizeConfig, convention: str) -> float:
    return 6 * vector_params(model, size) if convention == "6nd" else 0


def _head_per_token(size: SizeConfig, vocab_size: int, convention: str) -> float:
    d = size.d_model
    return {
        "paper": 0,
        "exact": (1 + BACKWARD) * 2 * d * vocab_size,
        "6nd": 6 * (d * vocab_size + d),  # the tied embedding as the head, and the last norm
    }[convention]


def _router_per_token(model: ModelConfig, size: SizeConfig, convention: str) -> list[float]:
    """FLOPs of the router in front of each recursion, per token that it scores."""
    none = [0.0] * model.n_recursions
    weights = router_params(model, size)
    if convention == "paper" or weights == 0:
        return none
    each = 6.0 * weights
    if model.router.type == "token":
        return [each, *none[1:]]
    if model.router.sampling == "aux_router":  # reads detached states: no gradient to its input
        d = size.d_model
        first = ROUTER_WIDTH.get(model.router.network, 0) * d * d or d
        each += 6.0 * weights - (2.0 * first if convention == "exact" else 0.0)
    return [each] * model.n_recursions


@dataclass(frozen=True)
class RunCost:
    """What one configuration costs, planned: FLOPs under each convention for one step."""

    params: Params
    tokens_per_step: int
    step_flops: dict[str, float]  # convention -> FLOPs of one step

    def steps(self, budget: float, convention: str) -> int:
        """Whole steps nearest to a budget under a convention."""
        return round(budget / self.step_flops[convention])


def run_cost(config: Config) -> RunCost:
    """Parameters and planned FLOPs per step of a configuration, under every convention."""
    batch, seq_len = config.train.batch_size, config.train.seq_len
    return _run_cost(config.model, config.size, config.data.vocab_size, batch, seq_len)


@lru_cache(maxsize=4096)
def _run_cost(
    model: ModelConfig, size: SizeConfig, vocab_size: int, batch: int, seq_len: int
) -> RunCost:
    step = {}
    for convention in ("paper", "exact", "6nd"):
        cost = cost_model(model, size, vocab_size, convention)
        routed = planned_routing(model, seq_len, batch, nominal=convention == "paper")
        step[convention] = cost.flops(routed, seq_len)
    return RunCost(count_params(model, size, vocab_size), batch * seq_len, step)

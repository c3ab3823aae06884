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

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from mor.config import Config, ModelConfig, SizeConfig
from mor.model.components import layout, n_blocks, recurrence_of, router_of
from mor.model.kv.spec import computes_kv, computing_layers, mode_of
from mor.model.relaxation.spec import relaxation_of

BACKWARD = 2  # FLOPs of the backward of a matmul over those of its forward


@dataclass(frozen=True)
class Params:
    """Parameters per component; tied weights are counted once."""

    embedding: int  # also the LM head (tied)
    attention: int
    mlp: int
    norm: int
    router: int
    relaxation: int = 0
    recurrence: int = 0

    @property
    def nonembedding(self) -> int:
        layers = self.attention + self.mlp + self.norm
        return layers + self.router + self.relaxation + self.recurrence

    @property
    def total(self) -> int:
        return self.embedding + self.nonembedding


@dataclass(frozen=True)
class Routed:
    """Work of some sequences: tokens and causal pairs routed at each block.

    `tokens[r]` is summed over the sequences; `pairs[r]` sums n(n+1)/2 over sequences of n routed
    tokens, or, where a recursion reads the keys of the m tokens of the first one, n (m+1)/2.
    `processed` counts the tokens that entered the model. `forward_tokens` and `forward_pairs` are
    the part of `tokens` and `pairs` that no backward followed (truncated backpropagation); empty
    where one followed all.
    """

    processed: float
    tokens: tuple[float, ...]
    pairs: tuple[float, ...]
    forward_tokens: tuple[float, ...] = ()
    forward_pairs: tuple[float, ...] = ()

    def __add__(self, other: Routed) -> Routed:
        return Routed(
            self.processed + other.processed,
            _sum(self.tokens, other.tokens),
            _sum(self.pairs, other.pairs),
            _sum(self.forward_tokens, other.forward_tokens),
            _sum(self.forward_pairs, other.forward_pairs),
        )


def _sum(a: tuple[float, ...], b: tuple[float, ...]) -> tuple[float, ...]:
    """Element by element; nothing counts as zeros."""
    if not a or not b:
        return a or b
    return tuple(x + y for x, y in zip(a, b, strict=True))


def no_work(n: int) -> Routed:
    """Nothing yet, of a model of `n` blocks."""
    return Routed(0.0, (0.0,) * n, (0.0,) * n)


def attention_params(size: SizeConfig) -> int:
    """Weights of q, k, v and o of one layer."""
    return 2 * size.d_model * size.d_head * (size.n_heads + size.n_kv_heads)


def kv_params(size: SizeConfig) -> int:
    """Weights of k and v of one layer."""
    return 2 * size.d_model * size.d_head * size.n_kv_heads


def mlp_params(size: SizeConfig) -> int:
    """Weights of gate, up and down of one layer."""
    return 3 * size.d_model * size.d_ff


def count_params(model: ModelConfig, size: SizeConfig, vocab_size: int) -> Params:
    """Unique parameters of a model, by component."""
    depths = layout(model, size)
    layers, computing = depths.unique_layers, len(computing_layers(model, depths))
    relaxation = relaxation_of(model)
    relaxed = [
        relaxation.params(model.relaxation, size, own)
        for block in computes_kv(model, depths)
        for own in block
    ]
    return Params(
        embedding=vocab_size * size.d_model,
        attention=layers * attention_params(size) - (layers - computing) * kv_params(size),
        mlp=layers * mlp_params(size),
        norm=(2 * layers + 1) * size.d_model,
        router=router_of(model).params(model, size, n_blocks(model, size)),
        relaxation=sum(relaxed) + model.n_recursions * relaxation.vector_params(size),
        recurrence=recurrence_of(model).params(model, size),
    )


def planned_routing(
    model: ModelConfig,
    size: SizeConfig,
    seq_len: int,
    sequences: float = 1.0,
    nominal: bool = False,
) -> Routed:
    """The work that is planned for sequences of `seq_len` tokens, on average over the steps.

    Expert choice routes max(1, int(c S)) tokens, or c S when `nominal` (the paper's counting);
    token choice is counted as if perfectly balanced.
    """
    recurrence, router, kv = recurrence_of(model), router_of(model), mode_of(model)
    tokens, pairs, without, first = [], [], [], 0.0
    for r, share in enumerate(router.shares(model, n_blocks(model, size))):
        n = router.planned_tokens(share, seq_len, nominal)
        first = n if r == 0 else first
        steps = recurrence.share_of_steps(model, r)
        tokens.append(n * sequences * steps)
        pairs.append(n * (kv.reach(r, n, first) + 1) / 2 * sequences * steps)
        without.append(recurrence.share_without_gradient(model, r) / steps if steps else 0.0)
    if not any(without):
        return Routed(seq_len * sequences, tuple(tokens), tuple(pairs))
    return Routed(
        seq_len * sequences,
        tuple(tokens),
        tuple(pairs),
        tuple(n * share for n, share in zip(tokens, without, strict=True)),
        tuple(n * share for n, share in zip(pairs, without, strict=True)),
    )


@dataclass(frozen=True)
class CostModel:
    """FLOPs of a model under one convention: a sum over what was routed.

    `per_token[r]` and `per_pair[r]` are the FLOPs of one routed token and of one causal pair at
    block r, all of its layers together; `fixed` is spent on every token processed and
    `fixed_pair` on every causal pair of whole sequences (the unshared layers).
    """

    convention: str
    per_token: tuple[float, ...]
    per_pair: tuple[float, ...]
    router_per_token: tuple[float, ...]  # on the tokens that the router of block r scores
    fixed: float
    fixed_pair: float
    nested: bool = True  # a router scores the tokens that the block before it took, else all
    backward: float = 0.0  # share of per_token and per_pair that is the backward's

    def flops(self, routed: Routed, seq_len: int) -> float:
        """FLOPs of `routed`, whose sequences hold `seq_len` tokens each."""
        scored = (routed.processed, *routed.tokens)
        total = self.fixed * routed.processed
        total += self.fixed_pair * routed.processed * (seq_len + 1) / 2
        for r, (tokens, pairs) in enumerate(zip(routed.tokens, routed.pairs, strict=True)):
            total += self.per_token[r] * tokens + self.per_pair[r] * pairs
            total += self.router_per_token[r] * scored[r if self.nested else 0]
        for r, (tokens, pairs) in enumerate(
            zip(routed.forward_tokens, routed.forward_pairs, strict=True)
        ):
            total -= self.backward * (self.per_token[r] * tokens + self.per_pair[r] * pairs)
        return total


@lru_cache(maxsize=4096)
def cost_model(model: ModelConfig, size: SizeConfig, vocab_size: int, convention: str) -> CostModel:
    """The FLOPs of one architecture under `convention` (paper | exact | 6nd)."""
    counted = CONVENTIONS[convention]
    depths, relaxation = layout(model, size), relaxation_of(model)
    recurrence, router = recurrence_of(model), router_of(model)
    unshared = len(depths.prologue) + len(depths.epilogue)
    token, pair = counted.layer(size, True)
    blocks, n = computes_kv(model, depths), n_blocks(model, size)
    per_token, per_pair = [], []
    for r in range(n):
        block = blocks[min(r, len(blocks) - 1)]
        tokens = [
            counted.layer(size, own)[0]
            + counted.beside(
                relaxation.params(model.relaxation, size, own),
                relaxation.forward_flops(model.relaxation, size, own),
            )
            for own in block
        ]
        once = counted.beside(
            relaxation.vector_params(size) + recurrence.token_params(model, size, r),
            recurrence.token_flops(model, size, r),
        )
        per_token.append(sum(tokens) + once)
        per_pair.append(len(block) * pair)
    return CostModel(
        convention,
        tuple(per_token),
        tuple(per_pair),
        counted.routers(router.token_params(model, size, n), router.token_flops(model, size, n)),
        fixed=unshared * token + counted.head(size, vocab_size),
        fixed_pair=unshared * pair,
        nested=router.nested,
        backward=counted.backward,
    )


@dataclass(frozen=True)
class Convention:
    """What a budget counts."""

    layer: Callable[[SizeConfig, bool], tuple[float, float]]  # FLOPs per token, per causal pair
    head: Callable[[SizeConfig, int], float]  # per token
    beside: Callable[[int, int], float]  # of (params, forward FLOPs) beside the layers, per token
    routers: Callable[[tuple[int, ...], tuple[float, ...]], tuple[float, ...]]
    backward: float  # the backward's share of a layer


def _paper_layer(size: SizeConfig, computes: bool) -> tuple[float, float]:
    """2 (4 d^2 + 3 d d_ff) + 2 d (2 pairs - tokens), GQA ignored."""
    d = size.d_model
    linear = 2 * (4 * d * d + 3 * d * size.d_ff) - (0 if computes else 4 * d * d)
    return linear - 2 * d, 4 * d


def _exact_layer(size: SizeConfig, computes: bool) -> tuple[float, float]:
    weights = attention_params(size) + mlp_params(size) - (0 if computes else kv_params(size))
    factor = 1 + BACKWARD
    return factor * 2 * weights, factor * 4 * size.n_heads * size.d_head


def _6nd_layer(size: SizeConfig, computes: bool) -> tuple[float, float]:
    weights = attention_params(size) + mlp_params(size) - (0 if computes else kv_params(size))
    return 6 * (weights + 2 * size.d_model), 0


CONVENTIONS = {
    "paper": Convention(  # plain layers only
        _paper_layer,
        head=lambda size, vocab: 0,
        beside=lambda params, forward: 0,
        routers=lambda params, exact: (0.0,) * len(params),
        backward=0.0,
    ),
    "exact": Convention(
        _exact_layer,
        head=lambda size, vocab: (1 + BACKWARD) * 2 * size.d_model * vocab,
        beside=lambda params, forward: (1 + BACKWARD) * forward,
        routers=lambda params, exact: exact,
        backward=BACKWARD / (1 + BACKWARD),
    ),
    "6nd": Convention(  # the tied embedding as the head, and the last norm
        _6nd_layer,
        head=lambda size, vocab: 6 * (size.d_model * vocab + size.d_model),
        beside=lambda params, forward: 6 * params,
        routers=lambda params, exact: tuple(6.0 * n for n in params),
        backward=2 / 3,
    ),
}


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
    for convention in CONVENTIONS:
        cost = cost_model(model, size, vocab_size, convention)
        routed = planned_routing(model, size, seq_len, batch, nominal=convention == "paper")
        step[convention] = cost.flops(routed, seq_len)
    return RunCost(count_params(model, size, vocab_size), batch * seq_len, step)

"""Mixture-of-Depths against a plain implementation, token by token."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mor.config import ConfigError, ModelConfig, RouterConfig
from mor.flops import Routed, cost_model, count_params, planned_routing
from mor.inference.decode import Decoder
from mor.model.components import check_model, layout, reset_inactive
from mor.model.layers import rotary_tables
from mor.model.routers.mod_spec import ModOptions
from mor.model.spans import Rectangle
from mor.model.transformer import Transformer
from tests.mor.model.variants import SIZE, VOCAB, build, draw

LENGTH = 19


def mod(router: dict | None = None, **changes) -> ModelConfig:
    settings = {"type": "mod", "alpha": 1.0, "aux_coeff": 0.3} | (router or {})
    return ModelConfig(
        "mod", init_std=0.2, options=ModOptions(), router=RouterConfig(**settings), **changes
    )


MODELS = {
    "mod": mod(),
    "half": mod(capacity=(0.5,)),
    "aux-router": mod({"sampling": "aux_router", "z_coeff": 0.1}, capacity=(0.4,)),
    "mlp-tanh": mod({"network": "mlp", "activation": "tanh"}, capacity=(0.4,)),
    "documents": mod(capacity=(0.5,), document_mask=True),
}


def plain(model: Transformer, tokens: Tensor, causal: bool) -> tuple[Tensor, list[int], Tensor]:
    """Logits (B, S, V), tokens of each layer and the auxiliary loss, one sequence at a time."""
    batch, length = tokens.shape
    tables = rotary_tables(length, SIZE.d_head, 10000.0, tokens.device, torch.float32)
    taken, states = [0] * SIZE.n_layers, []
    asked: list[list[Tensor]] = [[] for _ in range(SIZE.n_layers)]
    capacity = (model.model.capacity or (0.125,))[0]
    for row in tokens:
        x = model.embed(row)
        for i, layer in enumerate(model.layers):
            where = torch.arange(length)
            if i % 2 == 1:
                logit = model.routers[i // 2](x).squeeze(1)
                rule = logit
                if model.model.router.sampling == "aux_router":
                    rule = model.aux_routers[i // 2](x.detach()).squeeze(1)
                top = logit.topk(max(1, int(capacity * length))).indices.sort().values
                target = torch.zeros(length).index_fill_(0, top, 1.0)
                asked[i].append(F.binary_cross_entropy_with_logits(rule, target))
                where = (rule > 0).nonzero().squeeze(1) if causal else top
            taken[i] += len(where)
            if not len(where):
                continue
            span = Rectangle(1, len(where), tables, where)
            out, _ = layer(x[where], span)
            if i % 2 == 1:
                squash = torch.tanh if model.model.router.activation == "tanh" else torch.sigmoid
                gate = model.model.router.alpha * squash(logit[where])[:, None]
                out = x[where] + gate * (out - x[where])
            x = x.index_copy(0, where, out)
        states.append(x)
    x = model.norm(torch.stack(states).flatten(0, 1), torch.float32)
    logits = F.linear(x, model.embed.weight).view(batch, length, -1)
    loss = sum(torch.stack(losses).mean() for losses in asked if losses)
    assert isinstance(loss, Tensor)
    return logits, taken, loss


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", [name for name in MODELS if name != "documents"])
def test_it_equals_the_plain_implementation(name: str, causal: bool) -> None:
    model = build(MODELS[name], seed=2)
    tokens, _ = draw(3, LENGTH)
    out = model(tokens, routing="causal" if causal else "topk")
    logits, taken, loss = plain(model, tokens, causal)
    torch.testing.assert_close(out.logits, logits, atol=1e-4, rtol=1e-4)
    assert out.routed.tokens == taken
    if not causal:
        assert out.auxiliary["sampling_loss"].item() == pytest.approx(loss.item(), abs=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_the_causal_rule_never_sees_the_future(name: str) -> None:
    model = build(MODELS[name], seed=4)
    tokens, _ = draw(2, LENGTH)
    other = tokens.clone()
    other[:, 12] = (other[:, 12] + 1) % VOCAB
    one, two = (model(t, routing="causal").logits for t in (tokens, other))
    torch.testing.assert_close(one[:, :12], two[:, :12], atol=1e-5, rtol=1e-4)
    assert not torch.equal(one[:, 12:], two[:, 12:])


@pytest.mark.parametrize("name", MODELS)
def test_decoding_equals_the_causal_forward(name: str) -> None:
    model = build(MODELS[name], seed=5)
    tokens, _ = draw(3, LENGTH)
    whole, decoder = model(tokens, routing="causal"), Decoder(model, 3)
    for position in range(LENGTH):
        step = decoder.step(tokens[:, position])
        torch.testing.assert_close(
            step.logits[:, 0], whole.logits[:, position], atol=1e-4, rtol=1e-4
        )
        assert torch.equal(step.routed.depths[:, 0], whole.routed.depths[:, position])


def test_planned_work_is_the_routed_one_and_parameters_are_counted() -> None:
    for name in ("mod", "aux-router"):
        model = MODELS[name]
        built = build(model)
        assert sum(p.numel() for p in built.parameters()) == count_params(model, SIZE, VOCAB).total
        routed = built(draw(3, LENGTH)[0]).routed
        planned = planned_routing(model, SIZE, LENGTH, 3)
        assert (planned.tokens, planned.pairs) == (tuple(routed.tokens), tuple(routed.pairs))


def test_routers_score_every_token() -> None:
    """A routed layer that takes nothing still costs its router on all tokens."""
    cost = cost_model(mod(), SIZE, VOCAB, "exact")
    nothing = Routed(10.0, (0.0,) * 8, (0.0,) * 8)
    head = 6 * SIZE.d_model * VOCAB * 10
    assert cost.flops(nothing, 10) == head + 4 * 6 * SIZE.d_model * 10


def test_inactive_settings_are_reset_and_wrong_ones_refused() -> None:
    assert layout(mod(), SIZE).unique_layers == SIZE.n_layers
    assert reset_inactive(mod(capacity=(0.125,)), SIZE).capacity is None
    for wrong, setting in (
        (mod(capacity=(0.5, 0.2)), "model.capacity"),
        (mod(kv="cycle"), "model.kv"),
        (mod({"activation": "softmax"}), "model.router.activation"),
        (ModelConfig("m", "recursive", 3, router=RouterConfig("mod")), "model.router.type"),
    ):
        with pytest.raises(ConfigError) as found:
            check_model(wrong, SIZE)
        assert found.value.setting == setting

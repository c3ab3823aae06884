"""The decoder layer's parts, and a vanilla model against transformers' Llama."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mor.model.layers import RMSNorm, rotary_tables, rotate
from tests.mor.model.variants import SIZE, UNROUTED, VOCAB, build, draw

LLAMA = {
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "attention_norm": "input_layernorm",
    "mlp_norm": "post_attention_layernorm",
}


def test_rms_norm_and_its_own_backward_equal_torchs() -> None:
    norm = RMSNorm(12, eps=1e-5)
    torch.nn.init.normal_(norm.weight)
    x = (3 * torch.randn(7, 12)).requires_grad_()
    direction = torch.randn(7, 12)
    (norm(x, x.dtype) * direction).sum().backward()
    ours = x.grad, norm.weight.grad
    x.grad = norm.weight.grad = None
    expected = F.rms_norm(x, (12,), norm.weight, 1e-5)
    (expected * direction).sum().backward()
    torch.testing.assert_close(norm(x, x.dtype), expected)
    torch.testing.assert_close(ours, (x.grad, norm.weight.grad))


def test_rotated_products_depend_on_distance_only() -> None:
    tables = rotary_tables(30, 8, 10000.0, torch.device("cpu"), torch.float32)
    q, k = torch.randn(1, 1, 8), torch.randn(1, 1, 8)

    def product(i: int, j: int) -> float:
        turned_q = rotate(q, tables.cos[i], tables.sin[i])
        return float((turned_q * rotate(k, tables.cos[j], tables.sin[j])).sum())

    assert product(9, 4) == pytest.approx(product(25, 20), abs=1e-4)
    assert product(9, 4) != pytest.approx(product(9, 5), abs=1e-4)
    assert product(0, 0) == pytest.approx(float((q * k).sum()), abs=1e-5)


def llama_name(ours: str) -> str:
    if ours == "embed.weight":
        return "model.embed_tokens.weight"
    parts = ours.removesuffix(".weight").split(".")
    if parts[0] == "norm":
        return "model.norm.weight"
    piece = LLAMA.get(parts[-1], f"mlp.{parts[-1]}_proj")
    return f"model.layers.{parts[1]}.{piece}.weight"


def test_vanilla_equals_llama() -> None:
    transformers = pytest.importorskip("transformers")
    model = build(UNROUTED["vanilla"])
    config = transformers.LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=SIZE.d_model,
        intermediate_size=SIZE.d_ff,
        num_hidden_layers=SIZE.n_layers,
        num_attention_heads=SIZE.n_heads,
        num_key_value_heads=SIZE.n_kv_heads,
        head_dim=SIZE.d_head,
        rms_norm_eps=model.model.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": model.model.rope_theta},
        tie_word_embeddings=True,
        attn_implementation="eager",
    )
    llama = transformers.LlamaForCausalLM(config)
    weights = {llama_name(k): v for k, v in model.state_dict().items()}
    missing = llama.load_state_dict(weights, strict=False)
    assert missing.missing_keys in ([], ["lm_head.weight"])
    assert not missing.unexpected_keys
    llama.tie_weights()

    tokens, _ = draw(2, 21)
    targets = torch.cat((tokens[:, 1:], torch.full((2, 1), -100)), 1)
    out, theirs = model(tokens, targets), llama(tokens, labels=tokens)
    torch.testing.assert_close(out.logits, theirs.logits, atol=1e-4, rtol=1e-4)
    assert out.loss.item() == pytest.approx(theirs.loss.item(), abs=1e-5)
    out.total_loss.backward()
    theirs.loss.backward()
    expected = dict(llama.named_parameters())
    for name, parameter in model.named_parameters():
        grad = expected[llama_name(name)].grad
        assert (parameter.grad - grad).norm() <= 1e-4 * grad.norm(), name

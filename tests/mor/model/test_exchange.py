"""Weights out and in again, and by transformers with equal logits."""

from __future__ import annotations

import json

import pytest
import torch

from mor.model.exchange import ExchangeError, load, save
from tests.mor.model.variants import ALL, build, draw


@pytest.mark.parametrize(
    "name", ["vanilla", "vanilla-cycle-2", "recursive-dora", "expert-aux-router", "token-loss-free"]
)
def test_a_model_written_and_read_is_the_same(name: str, tmp_path) -> None:
    model = build(ALL[name])
    save(model, tmp_path)
    again = load(tmp_path)
    tokens, _ = draw(2, 12)
    assert torch.equal(again(tokens).logits, model(tokens).logits)
    assert (tmp_path / "config.json").exists() == (name == "vanilla")


def test_a_masked_model_keeps_its_separator(tmp_path) -> None:
    model = build(ALL["expert-documents"])
    save(model, tmp_path)
    assert load(tmp_path).separator == model.separator is not None


def test_transformers_loads_a_vanilla_model_with_equal_logits(tmp_path) -> None:
    transformers = pytest.importorskip("transformers")
    model = build(ALL["vanilla"])
    save(model, tmp_path)
    theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    tokens, _ = draw(2, 12)
    with torch.no_grad():
        torch.testing.assert_close(
            theirs(tokens).logits, model(tokens).logits, atol=1e-4, rtol=1e-4
        )


@pytest.mark.parametrize("shard_size", ["1GB", "30KB"])
def test_a_llama_of_transformers_is_read_with_equal_logits(shard_size: str, tmp_path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=40, hidden_size=36, intermediate_size=48, num_hidden_layers=3,
        num_attention_heads=9, num_key_value_heads=3, tie_word_embeddings=True,
        rms_norm_eps=1e-5, initializer_range=0.2,
    )  # fmt: skip
    made = transformers.LlamaForCausalLM(config).to(torch.bfloat16)
    made.save_pretrained(tmp_path, max_shard_size=shard_size)
    theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    model = load(tmp_path)
    tokens, _ = draw(2, 12)
    with torch.no_grad():
        torch.testing.assert_close(
            model(tokens).logits, theirs(tokens).logits, atol=1e-4, rtol=1e-4
        )


@pytest.mark.parametrize(
    "change",
    [
        {"model_type": "qwen2"},
        {"tie_word_embeddings": False},
        {"attention_bias": True},
        {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}},
    ],
)
def test_other_llamas_are_refused_by_name(change, tmp_path) -> None:
    save(build(ALL["vanilla"]), tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ExchangeError, match=next(iter(change))):
        load(tmp_path)


def test_folders_without_a_model_are_named(tmp_path) -> None:
    with pytest.raises(ExchangeError, match="holds neither"):
        load(tmp_path)
    save(build(ALL["vanilla"]), tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ExchangeError, match=r"model.safetensors is missing"):
        load(tmp_path)

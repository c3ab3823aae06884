"""On a GPU: the engine says what the causal forward pass says, for each kind of model."""

from __future__ import annotations

import pytest
import torch

from mor.inference import Engine, Sampling, Settings
from mor.inference.sampling import choose
from mor.model.transformer import Transformer
from tests.gpu.test_training import MODELS, SIZE
from tests.mor.inference.test_engine import NEW, prompts, served
from tests.mor.model.variants import SEPARATOR, VOCAB

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("model", MODELS)
@torch.no_grad()
def test_greedy_output_is_that_of_the_causal_forward(model: str, gpu: torch.device) -> None:
    built = Transformer(MODELS[model], SIZE, VOCAB, 1, separator=SEPARATOR).to(gpu).eval()
    asked, expected = prompts(4, 5), []
    for prompt in asked:
        tokens = list(prompt)
        for _ in range(NEW):
            logits = built(torch.tensor([tokens], device=gpu), routing="causal").logits
            tokens.append(int(logits[0, -1].argmax()))
        expected.append(tokens[len(prompt) :])
    for graphs in (True, False):
        made = Settings(max_batch=3, chunk=4, context=32, page=2, pool_tokens=26, graphs=graphs)
        found = served(built, asked, Engine(built, made), 5)
        assert [one.tokens for one in found] == expected, graphs


@pytest.mark.parametrize("model", ["vanilla", "expert", "token-shared", "recursive-dora"])
@torch.no_grad()
def test_bf16_scores_are_those_under_autocast(model: str, gpu: torch.device) -> None:
    """A token near a router's threshold may go the other way: so most tokens, not all."""
    built = Transformer(MODELS[model], SIZE, VOCAB, 1, separator=SEPARATOR).to(gpu).eval()
    asked, near = prompts(2, 4), list[bool]()
    engine = Engine(built, Settings(max_batch=4, chunk=1, context=32, bf16=True))
    found = engine.generate(asked, Sampling(max_new=0, score=True))
    for tokens, one in zip(asked, found, strict=True):
        with torch.autocast(gpu.type, torch.bfloat16):
            logits = built(torch.tensor([tokens], device=gpu), routing="causal").logits[0]
        wanted = logits[:-1].float().log_softmax(-1).cpu()[range(len(tokens) - 1), tokens[1:]]
        near += ((torch.tensor(one.logprobs) - wanted).abs() < 0.02).tolist()
    assert sum(near) >= 0.9 * len(near)


@pytest.mark.parametrize("limits", [{}, {"top_k": 40}, {"top_p": 0.9}])
def test_tokens_are_drawn_as_on_the_cpu(limits: dict, gpu: torch.device) -> None:
    """Of logits in bf16, many of which are equal."""
    logits = torch.randn(64, 5000, generator=torch.Generator().manual_seed(0)).bfloat16().float()
    each = [Sampling(temperature=0.9, seed=i, **limits) for i in range(64)]
    assert choose(logits.to(gpu), each, range(64)) == choose(logits, each, range(64))


@pytest.mark.parametrize("model", ["vanilla", "expert", "token-shared"])
def test_samples_depend_on_the_seed_alone(model: str, gpu: torch.device) -> None:
    built = Transformer(MODELS[model], SIZE, VOCAB, 1, separator=SEPARATOR).to(gpu).eval()
    sampling = Sampling(max_new=NEW, temperature=1.0, seed=3)
    alone = Engine(built, Settings(max_batch=1, context=32)).generate([[3, 1]], sampling)
    beside = Engine(built, Settings(max_batch=4, context=32))
    others = [[5, 2, 9], [3, 1], [8]]
    assert beside.generate(others, sampling)[1].tokens == alone[0].tokens

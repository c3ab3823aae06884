"""Our numbers are those of the harness's own class for transformers, on an exported model."""

from __future__ import annotations

import random
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from transformers import AutoModelForCausalLM, AutoTokenizer

from mor.config import ModelConfig
from mor.data.tokenizer import ByteTokenizer
from mor.evaluate.engine_scorer import EngineScorer
from mor.evaluate.harness.model import HarnessModel
from mor.evaluate.scoring import Asked, CausalScorer
from mor.export import write_for_transformers
from mor.model.transformer import Transformer
from tests.mor.model.variants import SIZE

CONTEXT = 48
TEXT = Path(random.__file__).read_text()


SCORERS = {
    "causal": lambda model: CausalScorer(
        model, CONTEXT, torch.autocast("cpu", torch.bfloat16, enabled=False)
    ),
    "engine": lambda model: EngineScorer(model, CONTEXT),
}


@pytest.fixture(params=SCORERS)
def pair(request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, HarnessModel]:
    """The harness's HFLM over an exported model, and ours over the model itself."""
    names = ("Accelerator", "InitProcessGroupKwargs", "find_executable_batch_size")
    accelerate = types.ModuleType("accelerate")  # it is imported, and used with several GPUs only
    vars(accelerate).update(dict.fromkeys(names))
    utils = types.ModuleType("accelerate.utils")
    vars(utils).update(get_max_memory=None)
    monkeypatch.setitem(sys.modules, "accelerate", accelerate)
    monkeypatch.setitem(sys.modules, "accelerate.utils", utils)
    from lm_eval.models.huggingface import HFLM

    model = Transformer(ModelConfig("vanilla", init_std=0.3), SIZE, 256, seed=3).eval()
    write_for_transformers(model, ByteTokenizer(), CONTEXT, tmp_path)
    theirs = HFLM(
        pretrained=AutoModelForCausalLM.from_pretrained(tmp_path),
        tokenizer=AutoTokenizer.from_pretrained(tmp_path),
        max_length=CONTEXT,
        batch_size=4,
        add_bos_token=False,
    )
    return theirs, HarnessModel(SCORERS[request.param](model), ByteTokenizer())


def requests(kind: str, *arguments: tuple[Any, ...]) -> list[Instance]:
    return [Instance(request_type=kind, doc={}, arguments=one, idx=0) for one in arguments]  # type: ignore[arg-type]


def test_likelihoods_are_the_harness_s(pair: tuple[Any, HarnessModel]) -> None:
    theirs, ours = pair
    generator = random.Random(0)
    asked = []
    for n in (0, 1, 9, 30, 47, 60, 100):  # contexts, two of which do not fit
        for k in (1, 4, 20, CONTEXT):
            at = generator.randrange(len(TEXT) - 200)
            context = TEXT[at : at + n]
            if not context or context.strip():
                asked.append((context, TEXT[at + n : at + n + k]))
    found = ours.loglikelihood(requests("loglikelihood", *asked))
    wanted = theirs.loglikelihood(requests("loglikelihood", *asked))
    assert [one[0] for one in found] == pytest.approx([one[0] for one in wanted], abs=1e-3)
    assert [one[1] for one in found] == [one[1] for one in wanted]
    # texts apart: HFLM takes windows that read the same tokens for one, whatever they predict
    lengths = (1, 47, 48, 49, 96, 97, 200)
    rolling = [(TEXT[1000 * i : 1000 * i + n],) for i, n in enumerate(lengths)]
    assert ours.loglikelihood_rolling(requests("loglikelihood_rolling", *rolling)) == pytest.approx(
        theirs.loglikelihood_rolling(requests("loglikelihood_rolling", *rolling)), abs=1e-3
    )


def test_answers_are_the_harness_s(pair: tuple[Any, HarnessModel]) -> None:
    """Also where the model says the separator, which ends an answer while others of HFLM's batch go
    on: without an eos_token_id beside the weights HFLM gave the text behind it, too."""
    _, ours = pair
    generator = random.Random(3)
    ended, most = 0, {"max_gen_toks": 20}
    for until in ([], ["\n"], ["e", "\n\n"], ["a", "<|endoftext|>"], ["\ufffd"]):
        starts = [generator.randrange(len(TEXT) - 200) for _ in range(8)]
        lengths = (1, 2, 5, 9, 20, 28, 40, 60)
        texts = [TEXT[at : at + n] for at, n in zip(starts, lengths, strict=True)]
        found, wanted = (
            model.generate_until(
                requests("generate_until", *((t, {"until": [*until], **most}) for t in texts))
            )
            for model in pair[::-1]
        )
        assert found == wanted
        new = ours.scorer.generate(
            [Asked(ours.encode(text), 20, lambda new: new[-1] == 255) for text in texts]
        )
        ended += sum(tokens[-1] == 255 for tokens in new)
    assert ended > 0

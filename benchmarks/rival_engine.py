"""Vanilla in our engine beside the same Llama under transformers' continuous batching, greedy."""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.toys import VOCAB, Toy
from mor.inference import Engine, Sampling, Settings

PAGE = 32  # tokens, of transformers' cache


def against_transformers(toy: Toy, options: argparse.Namespace) -> dict[str, Any]:
    """Vanilla in our engine over Llama under transformers' continuous batching, the same work."""
    if options.pairs == 0 or options.device != "cpu":
        return {"left_out": "--pairs 0" if options.pairs == 0 else "on a GPU"}
    theirs = continuous_batching(toy, options)
    if theirs is None:
        return {"left_out": "transformers is not installed"}
    prompts = [[i % (VOCAB - 1)] for i in range(2 * options.batch)]
    new = options.mean_length // 4
    engine = Engine(toy.model, Settings(max_batch=options.batch, context=new + 1))

    def ours() -> list[list[int]]:
        return [done.tokens for done in engine.generate(prompts, Sampling(max_new=new))]

    same = statistics.mean(a == b for a, b in zip(ours(), theirs(prompts, new), strict=True))
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    for i in range(options.pairs):
        print(f"transformers, pair {i + 1} of {options.pairs}", file=sys.stderr, flush=True)
        for name, work in (("ours", ours), ("theirs", lambda: theirs(prompts, new))):
            began = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - began)
    ratios = [b / a for a, b in zip(seconds["ours"], seconds["theirs"], strict=True)]
    tokens = len(prompts) * new
    return {
        "speedup": round(statistics.median(ratios), 3),
        "tokens_per_s": round(tokens / statistics.median(seconds["ours"]), 1),
        "their_tokens_per_s": round(tokens / statistics.median(seconds["theirs"]), 1),
        "equal_outputs": round(same, 3),
        "requests": len(prompts),
        "new_tokens": new,
    }


def continuous_batching(
    toy: Toy, options: argparse.Namespace
) -> Callable[[list[list[int]], int], list[list[int]]] | None:
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        import transformers
    except ImportError:
        return None
    from mor.model.exchange import llama_config, llama_name

    logging.disable(logging.WARNING)
    config = transformers.LlamaConfig(
        **{k: v for k, v in llama_config(toy.model).items() if k != "torch_dtype"}
    )
    config._attn_implementation = "sdpa"
    model = transformers.LlamaForCausalLM(config).eval()
    weights = {llama_name(name): weight for name, weight in toy.model.state_dict().items()}
    model.load_state_dict(weights, strict=False)
    model.tie_weights()

    def generate(prompts: list[list[int]], new: int) -> list[list[int]]:
        pages = options.batch * (-(-(new + 1) // PAGE) + 1)  # left out, it takes most of the memory
        batching = transformers.ContinuousBatchingConfig(
            page_size=PAGE,
            num_blocks=pages,
            max_batch_tokens=4 * options.batch,
            max_requests_per_batch=options.batch,
            allow_block_sharing=False,
        )
        greedy = transformers.GenerationConfig(
            max_new_tokens=new, do_sample=False, eos_token_id=-1, pad_token_id=0
        )
        done = model.generate_batch(
            prompts,
            generation_config=greedy,
            continuous_batching_config=batching,
            progress_bar=False,
        )
        return [one.generated_tokens for one in done.values()]

    return generate

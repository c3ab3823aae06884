"""How fast a configuration trains here: real steps on random tokens, for about a minute.

The model, optimizer, precision, micro-batch and processes are those of training; rows are random,
so no corpus has to be there, and the learning rate is zero, so nothing diverges. Checkpoints and
validation are not in it.
"""

from __future__ import annotations

import datetime
import resource
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ledger.provenance import provenance
from ledger.speeds import Speed
from mor.config import Config
from mor.data.batches import Batches
from mor.data.packed import Corpus, Meta, token_dtype
from mor.devices import peak_tflops
from mor.speed_settings import speed_settings
from mor.train.distributed import join
from mor.train.run import choose_device, device_counts, device_name, measured_cpu_tflops
from mor.train.trainer import Trainer

WARM_UP = 2  # steps before the clock starts: compilation, the search for a micro-batch
LEAST = 2  # steps that are timed
BATCHES = 4  # of random rows


def measure(config: Config, seconds: float) -> Speed:
    """Train for about so many seconds. Raises ConfigError, OutOfMemory."""
    torch.set_num_threads(config.runtime.threads)
    device, ranks = choose_device(config), join()
    # The start is not what is measured: weights are drawn.
    config = replace(config, train=replace(config.train, init_from=None, init_fingerprint=None))
    trainer = Trainer(config, _random_rows(config), device, ranks)
    for _ in range(WARM_UP):
        trainer.step(0.0)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    before, steps, began = trainer.meter.flops("exact"), 0, time.perf_counter()
    while True:
        trainer.step(0.0)  # its losses come to the host, so it has ended
        steps += 1
        spent = time.perf_counter() - began
        if ranks.any(spent >= seconds and steps >= LEAST)[0]:
            break
    flops_per_s = (trainer.meter.flops("exact") - before) / spent
    name = device_name(device)
    peak = config.runtime.peak_tflops or (
        measured_cpu_tflops(config.runtime.threads) if name == "cpu" else peak_tflops(name)
    )
    tokens = steps * config.train.batch_size * config.train.seq_len
    return Speed(
        model=config.model.name,
        size=config.size.name,
        device=name,
        **device_counts(config, device, ranks.size),
        tokens_per_s=tokens / spent,
        flops_per_s=flops_per_s,
        mfu=flops_per_s / (ranks.size * peak * 1e12) if peak else None,
        peak_memory_gb=_peak_memory(device) / 1e9,
        micro_batch=trainer.micro_batch.size,
        steps=steps,
        seconds=spent,
        settings=speed_settings(config),
        measured=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        extra=provenance(),
    )


def _peak_memory(device: torch.device) -> float:
    """Bytes: allocated on the GPU, else resident in this process since it began."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def _random_rows(config: Config) -> Batches:
    train, vocabulary = config.train, config.data.vocab_size
    rows = BATCHES * train.batch_size
    dtype = token_dtype(vocabulary)
    generator = np.random.default_rng(0)
    tokens = generator.integers(0, vocabulary, rows * train.seq_len + 1).astype(dtype)
    meta = Meta(
        fingerprint="",
        tokenizer="",
        vocab_size=vocabulary,
        separator=0,
        dtype=str(dtype),
        train_tokens=len(tokens),
        val_tokens=len(tokens),
        train_documents=1,
        val_documents=1,
        val_bytes=len(tokens),
    )
    corpus = Corpus(Path("random"), meta, tokens, tokens)
    return Batches(corpus, train.seq_len, train.batch_size, config.seed)

"""Small trained models for the throughput benchmark: real routers with a real exit distribution.

135M's width with 26 layers in place of 30, so that the 24 shared ones divide into 2, 3 and 4
recursions and every model is as deep as vanilla at full depth; bytes as tokens. Trained on the
source text of Python's standard library under bf16 autocast, on a GPU where one is asked for. The
weights are kept as <folder>/<name>.npz with what they were trained by. Needs torch and NumPy.
"""

from __future__ import annotations

import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mor.config import ModelConfig, RouterConfig, SizeConfig
from mor.model.transformer import Transformer

SIZES = {
    "360m": SizeConfig("360m-26", 26, d_model=960, n_heads=15, n_kv_heads=5, d_head=64, d_ff=2560),
    "135m": SizeConfig("135m-26", 26, d_model=576, n_heads=9, n_kv_heads=3, d_head=64, d_ff=1536),
    "tiny": SizeConfig("tiny", 14, d_model=64, n_heads=2, n_kv_heads=1, d_head=32, d_ff=128),
}
VOCAB = 256
MODELS = {
    "vanilla": ModelConfig("vanilla"),
    **{f"mor{n}": ModelConfig("mor", "mor", n, router=RouterConfig("expert")) for n in (2, 3, 4)},
}
RATE, WARMUP, ROWS = 1e-3, 10, 2  # learning rate, steps to reach it, sequences per step
HELD_OUT = 2**17  # last bytes of the text, for the loss


@dataclass(frozen=True)
class Toy:
    """A trained model."""

    name: str
    model: Transformer
    nll: float  # nats per byte of held-out text, routed causally
    train_s: float  # what training took, when it was trained


def text() -> np.ndarray:
    """The modules of Python's standard library, shuffled by name, as bytes (n,)."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    order = np.random.default_rng(0).permutation(len(files))
    return np.frombuffer(b"\xff".join(files[i].read_bytes() for i in order), np.uint8)


def rows(data: np.ndarray, count: int, length: int, seed: int) -> tuple[Tensor, Tensor]:
    """Random windows: tokens and targets, both (count, length)."""
    starts = np.random.default_rng(seed).integers(0, len(data) - length - 1, count)
    windows = torch.from_numpy(
        np.stack([data[i : i + length + 1] for i in starts]).astype(np.int64)
    )
    return windows[:, :-1], windows[:, 1:]


def toy(name: str, size: str, steps: int, length: int, folder: Path, device: str = "cpu") -> Toy:
    """The model of that name on a device: from the folder, or trained there and put into it."""
    model = Transformer(MODELS[name], SIZES[size], VOCAB, seed=0).to(device)
    file = folder / f"{name}-{size}-{steps}x{ROWS}x{length}.npz"
    if not file.exists():
        began = time.perf_counter()
        train(model, steps, length)
        took = time.perf_counter() - began
        arrays = {key: value.cpu().numpy() for key, value in model.state_dict().items()}
        folder.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part.npz")
        np.savez(part, **arrays, **{"@nll": held_out_nll(model, length), "@train_s": took})
        part.rename(file)
    with np.load(file, allow_pickle=False) as stored:
        said = {key: float(stored[key]) for key in ("@nll", "@train_s")}
        weights = {k: torch.from_numpy(stored[k]) for k in stored.files if not k.startswith("@")}
    model.load_state_dict(weights)
    return Toy(name, model.eval(), said["@nll"], said["@train_s"])


def train(model: Transformer, steps: int, length: int) -> None:
    data = text()[:-HELD_OUT]
    device = model.embed.weight.device
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.95))
    for step in range(steps):
        tokens, targets = (t.to(device) for t in rows(data, ROWS, length, seed=step))
        decay = min(1.0, (steps - step) / (0.3 * steps))
        optimizer.param_groups[0]["lr"] = RATE * min(1.0, (step + 1) / WARMUP) * decay
        with torch.autocast(device.type, torch.bfloat16):
            loss = model(tokens, targets, step=step, keep_logits=False).total_loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()


@torch.no_grad()
def held_out_nll(model: Transformer, length: int) -> float:
    device = model.embed.weight.device
    tokens, targets = (t.to(device) for t in rows(text()[-HELD_OUT:], 16, length, seed=0))
    losses = [
        model.eval()(t[None], y[None], routing="causal", keep_logits=False).loss
        for t, y in zip(tokens, targets, strict=True)
    ]
    return float(torch.stack(losses).mean())

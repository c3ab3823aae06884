"""What can be trained: every check that needs more than a type, each saying how to fix it."""

from __future__ import annotations

import dataclasses

from ledger.conventions import CONVENTIONS
from mor.config import Config, ConfigError, SizeConfig, TrainConfig
from mor.model.checks import INIT_METHODS
from mor.model.components import check_model
from mor.model.lookup import not_negative, one_of, positive
from mor.optim.spec import check_optimizer
from mor.values import SEEDS

SCHEDULES = ("trapezoid", "cosine")
PRECISIONS = ("fp32", "bf16")
DATA_KINDS = ("stdlib", "files", "hub")
RECOMPUTE = ("auto", "none", "recursion", "layer")
PARALLEL = ("ddp", "fsdp")
WANDB_MODES = ("disabled", "offline", "online")
ABOVE_0 = (
    *("batch_size", "seq_len", "lr", "lr_factor", "batch_factor", "clip", "val_tokens"),
    *("warmup_budget", "warmup_recursions"),
)
ABOVE_0_AT_RUNTIME = (
    *("threads", "workers", "log_steps", "keep_checkpoints", "checkpoint_s", "loss_chunk"),
    "peak_tflops",
)


def validate(config: Config) -> Config:
    """Return the configuration if it can be trained; raise ConfigError if it cannot."""
    check_settings(config)
    positive("budget", config.budget)
    _validate_micro_batch(config)
    return config


def check_settings(config: Config) -> None:
    """Raise ConfigError for a setting that is wrong whatever a recipe says of rate and batch, and
    whatever budget `tokens` stands for. What passes can be priced."""
    one_of("flops.convention", config.flops.convention, tuple(CONVENTIONS))
    one_of("train.schedule", config.train.schedule, SCHEDULES)
    one_of("train.precision", config.train.precision, PRECISIONS)
    one_of("data.kind", config.data.kind, DATA_KINDS)
    one_of("runtime.device", config.runtime.device, ("auto", "cpu", "cuda"))
    one_of("runtime.recompute", config.runtime.recompute, RECOMPUTE)
    if config.runtime.compile not in (True, False, "auto"):
        raise ConfigError(
            "runtime.compile", config.runtime.compile, "not true, false or auto", "set it to auto"
        )
    one_of("runtime.masks", config.runtime.masks, ("auto", "blocks", "dense"))
    one_of("runtime.parallel", config.runtime.parallel, PARALLEL)
    one_of("runtime.wandb", config.runtime.wandb, WANDB_MODES)
    check_optimizer(config)
    _validate_size(config.size)
    check_model(config.model, config.size)
    _validate_train(config)


def _validate_size(size: SizeConfig) -> None:
    for f in dataclasses.fields(size):
        if f.name != "name":
            positive(f"size.{f.name}", getattr(size, f.name))
    if size.d_model != size.n_heads * size.d_head:
        raise ConfigError(
            "size.d_model",
            size.d_model,
            f"not n_heads x d_head = {size.n_heads} x {size.d_head} = {size.n_heads * size.d_head}",
            f"set size.d_model={size.n_heads * size.d_head} or change size.n_heads, size.d_head",
        )
    if size.n_heads % size.n_kv_heads:
        raise ConfigError(
            "size.n_kv_heads",
            size.n_kv_heads,
            f"does not divide size.n_heads={size.n_heads}",
            "choose a divisor of it",
        )
    if size.d_head % 2:
        raise ConfigError(
            "size.d_head", size.d_head, "rotary embedding rotates pairs", "choose an even width"
        )


def _validate_train(config: Config) -> None:
    train = config.train
    for name in ABOVE_0:
        positive(f"train.{name}", getattr(train, name))
    for name in ("warmup_steps", "weight_decay"):
        not_negative(f"train.{name}", getattr(train, name))
    for name in ("beta1", "beta2", "warmup_fraction", "cooldown_fraction"):
        value = getattr(train, name)
        if not 0 <= value < 1:
            raise ConfigError(f"train.{name}", value, "must lie in [0, 1)", "choose such a share")
    if train.init_method is not None:
        one_of("train.init_method", train.init_method, INIT_METHODS)
    if config.tokens is None:  # which stand for a budget
        positive("budget", config.budget)
    positive("tokens", config.tokens)
    not_negative("seed", config.seed)
    if config.seed >= SEEDS:
        raise ConfigError("seed", config.seed, "generators take 64 bits", "type a smaller one")
    positive("data.vocab_size", config.data.vocab_size)
    for name in ABOVE_0_AT_RUNTIME:
        positive(f"runtime.{name}", getattr(config.runtime, name))
    if train.val_tokens < train.seq_len:
        raise ConfigError(
            "train.val_tokens",
            train.val_tokens,
            f"less than train.seq_len={train.seq_len}",
            f"set train.val_tokens={train.seq_len} or more",
        )
    _validate_on_the_way(train)


def _validate_micro_batch(config: Config) -> None:
    micro, batch = config.runtime.micro_batch, config.train.batch_size
    if isinstance(micro, str) and micro != "auto":
        raise ConfigError(
            "runtime.micro_batch", micro, "neither a number nor auto", "set it to auto"
        )
    if isinstance(micro, int) and (micro < 1 or batch % micro):
        raise ConfigError(
            "runtime.micro_batch",
            micro,
            f"does not divide train.batch_size={batch}",
            "choose a divisor of it",
        )


def _validate_on_the_way(train: TrainConfig) -> None:
    if train.eval_points < 0:
        raise ConfigError(
            "train.eval_points", train.eval_points, "a number of points below 0", "0 is none"
        )
    if train.eval_tokens is not None and train.eval_tokens < train.seq_len:
        raise ConfigError(
            "train.eval_tokens",
            train.eval_tokens,
            f"less than train.seq_len={train.seq_len}",
            f"set train.eval_tokens={train.seq_len} or more, or null for train.val_tokens",
        )

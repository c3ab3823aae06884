"""What can be trained: every check that needs more than a type, each with the way out."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

from mor.config import Config, ConfigError, ModelConfig, SizeConfig

ARCHITECTURES = ("vanilla", "recursive", "mor")
SHARINGS = ("cycle", "sequence", "middle_cycle", "middle_sequence")
KV_MODES = ("recursion", "shared")
CONVENTIONS = ("paper", "exact", "6nd")
SCHEDULES = ("trapezoid", "cosine")
PRECISIONS = ("fp32", "bf16")
ROUTER_TYPES = ("none", "expert", "token")
ROUTER_NETWORKS = ("linear", "mlp")
ROUTER_ACTIVATIONS = ("sigmoid", "tanh", "softmax")
DATA_KINDS = ("stdlib", "files", "hub")
WANDB_MODES = ("disabled", "offline", "online")


def validate(config: Config) -> Config:
    """Return the configuration if it can be trained; raise ConfigError if it cannot."""
    _one_of("model.architecture", config.model.architecture, ARCHITECTURES)
    _one_of("model.sharing", config.model.sharing, SHARINGS)
    _one_of("model.kv", config.model.kv, KV_MODES)
    _one_of("flops.convention", config.flops.convention, CONVENTIONS)
    _one_of("train.schedule", config.train.schedule, SCHEDULES)
    _one_of("train.precision", config.train.precision, PRECISIONS)
    _one_of("data.kind", config.data.kind, DATA_KINDS)
    _one_of("runtime.device", config.runtime.device, ("auto", "cpu", "cuda"))
    _one_of("runtime.wandb", config.runtime.wandb, WANDB_MODES)
    _validate_size(config.size)
    _validate_model(config.model, config.size)
    _validate_router(config.model)
    _validate_train(config)
    return config


def _one_of(setting: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(setting, value, "not known", "choose one of " + ", ".join(allowed))


def _positive(setting: str, value: float) -> None:
    if value <= 0:
        raise ConfigError(setting, value, "must be above 0", f"set {setting} to a positive number")


def _validate_size(size: SizeConfig) -> None:
    for f in dataclasses.fields(size):
        if f.name != "name":
            _positive(f"size.{f.name}", getattr(size, f.name))
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


def _validate_model(model: ModelConfig, size: SizeConfig) -> None:
    _positive("model.n_recursions", model.n_recursions)
    if model.architecture == "vanilla":
        if model.n_recursions != 1:
            raise ConfigError(
                "model.n_recursions",
                model.n_recursions,
                "a vanilla model has no recursion",
                "choose model=recursive or model=mor",
            )
        return
    if model.n_recursions < 2:
        raise ConfigError(
            "model.n_recursions",
            model.n_recursions,
            "one recursion is a vanilla model",
            "set model.n_recursions=2 or more, or choose model=vanilla",
        )
    between = size.n_layers - (2 if model.sharing.startswith("middle_") else 0)
    if model.block_layers is not None:
        _positive("model.block_layers", model.block_layers)
    elif model.n_recursions > between:
        raise ConfigError(
            "model.n_recursions",
            model.n_recursions,
            f"size.n_layers={size.n_layers} leaves only {max(between, 0)} layers to share "
            f"under model.sharing={model.sharing}",
            f"set model.n_recursions={max(between, 2)} or less, more size.n_layers, "
            "or model.block_layers",
        )
    if model.kv == "shared" and model.sharing.endswith("sequence"):
        raise ConfigError(
            "model.kv",
            model.kv,
            f"under model.sharing={model.sharing} recursions hold different layers, so there are "
            "no keys and values of the same layer to share",
            "choose model.sharing=cycle or middle_cycle, or model.kv=recursion",
        )
    if model.capacity is not None:
        _validate_capacity(model)


def _validate_capacity(model: ModelConfig) -> None:
    capacity = model.capacity
    assert capacity is not None
    shown = "[" + ",".join(f"{c:g}" for c in capacity) + "]"
    if model.router.type != "expert":
        raise ConfigError(
            "model.capacity", shown, "only expert choice has capacities", "set it with model=mor"
        )
    example = ",".join(
        f"{(model.n_recursions - r) / model.n_recursions:.3g}" for r in range(model.n_recursions)
    )
    if len(capacity) != model.n_recursions:
        raise ConfigError(
            "model.capacity",
            shown,
            f"needs one share for each of {model.n_recursions} recursions",
            f"type 'model.capacity=[{example}]'",
        )
    if any(not 0 < c <= 1 for c in capacity):
        raise ConfigError(
            "model.capacity",
            shown,
            "a share of tokens lies above 0 and at most at 1",
            f"type 'model.capacity=[{example}]'",
        )
    if any(later > earlier for earlier, later in pairwise(capacity)):
        raise ConfigError(
            "model.capacity",
            shown,
            "active tokens are nested, so capacities cannot rise",
            f"type 'model.capacity=[{example}]'",
        )


def _validate_router(model: ModelConfig) -> None:
    router = model.router
    _one_of("model.router.type", router.type, ROUTER_TYPES)
    _one_of("model.router.network", router.network, ROUTER_NETWORKS)
    _one_of("model.router.activation", router.activation, ROUTER_ACTIVATIONS)
    _one_of("model.router.sampling", router.sampling, ("aux_loss", "aux_router"))
    _one_of("model.router.balancing", router.balancing, ("loss", "loss_free"))
    routed = router.type != "none"
    if routed != (model.architecture == "mor"):
        raise ConfigError(
            "model.router.type",
            router.type,
            f"does not go with model.architecture={model.architecture}",
            "MoR needs expert or token, the others none",
        )
    if router.type == "expert" and router.activation == "softmax":
        raise ConfigError(
            "model.router.activation",
            "softmax",
            "expert choice scores each token by itself",
            "choose sigmoid or tanh",
        )
    if router.type == "token" and router.activation == "tanh":
        raise ConfigError(
            "model.router.activation",
            "tanh",
            "token choice needs a share for each depth",
            "choose softmax or sigmoid",
        )
    if router.type == "token" and model.sharing.endswith("sequence"):
        raise ConfigError(
            "model.sharing",
            model.sharing,
            "token choice needs the same block at every depth",
            "choose cycle or middle_cycle",
        )


def _validate_train(config: Config) -> None:
    train = config.train
    for name in ("batch_size", "seq_len", "lr", "clip", "warmup_budget", "val_tokens"):
        _positive(f"train.{name}", getattr(train, name))
    for name in ("beta1", "beta2", "warmup_fraction", "cooldown_fraction"):
        value = getattr(train, name)
        if not 0 <= value < 1:
            raise ConfigError(f"train.{name}", value, "must lie in [0, 1)", "choose such a share")
    _positive("budget", config.budget)
    _positive("data.vocab_size", config.data.vocab_size)
    _positive("runtime.threads", config.runtime.threads)
    if train.val_tokens < train.seq_len:
        raise ConfigError(
            "train.val_tokens",
            train.val_tokens,
            f"less than train.seq_len={train.seq_len}",
            f"set train.val_tokens={train.seq_len} or more",
        )
    micro = config.runtime.micro_batch
    if micro is not None and (micro < 1 or train.batch_size % micro):
        raise ConfigError(
            "runtime.micro_batch",
            micro,
            f"does not divide train.batch_size={train.batch_size}",
            "choose a divisor of it",
        )

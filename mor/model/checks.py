"""Which models can be built: every check of model settings, each with the way out. No torch."""

from __future__ import annotations

from itertools import pairwise

from mor.config import ConfigError, ModelConfig, RouterConfig, SizeConfig
from mor.model.sharing import REUSING

ARCHITECTURES = ("vanilla", "recursive", "mor")
SHARINGS = ("cycle", "sequence", "middle_cycle", "middle_sequence")
KV_MODES = ("recursion", "shared", "hybrid", *REUSING)
ROUTER_TYPES = ("none", "expert", "token")
ROUTER_NETWORKS = ("linear", "mlp", "wide_mlp", "random")
ROUTER_ACTIVATIONS = ("sigmoid", "tanh", "softmax", "none")
INIT_METHODS = ("stepwise", "average", "lower", "upper", "random")  # of train.init_method
RELAXATIONS = ("none", "encoding", "scaling", "lora", "dora", "prompt")


def one_of(setting: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(setting, value, "not known", "choose one of " + ", ".join(allowed))


def positive(setting: str, value: float) -> None:
    if value <= 0:
        raise ConfigError(setting, value, "must be above 0", f"set {setting} to a positive number")


def check_model(model: ModelConfig, size: SizeConfig) -> None:
    """Raise ConfigError for a model that cannot be built."""
    one_of("model.architecture", model.architecture, ARCHITECTURES)
    one_of("model.sharing", model.sharing, SHARINGS)
    one_of("model.kv", model.kv, KV_MODES)
    one_of("model.relaxation.type", model.relaxation.type, RELAXATIONS)
    positive("model.n_recursions", model.n_recursions)
    _check_recursions(model, size)
    _check_kv(model, size)
    if model.capacity is not None:
        _check_capacity(model)
    _check_relaxation(model, size)
    _check_router(model)


def _check_recursions(model: ModelConfig, size: SizeConfig) -> None:
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
        positive("model.block_layers", model.block_layers)
    elif model.n_recursions > between:
        raise ConfigError(
            "model.n_recursions",
            model.n_recursions,
            f"size.n_layers={size.n_layers} leaves only {max(between, 0)} layers to share "
            f"under model.sharing={model.sharing}",
            f"set model.n_recursions={max(between, 2)} or less, more size.n_layers, "
            "or model.block_layers",
        )


def _check_kv(model: ModelConfig, size: SizeConfig) -> None:
    sequence = model.sharing.endswith("sequence")
    if model.kv == "shared" and model.architecture != "vanilla" and sequence:
        raise ConfigError(
            "model.kv",
            model.kv,
            f"under model.sharing={model.sharing} recursions hold different layers, so there are "
            "no keys and values of the same layer to share",
            "choose model.sharing=cycle or middle_cycle, or model.kv=recursion or sequence",
        )
    if model.kv == "hybrid" and (model.router.type != "expert" or sequence):
        raise ConfigError(
            "model.kv",
            model.kv,
            "overwriting shared keys and values is for expert choice with one block at each depth",
            "choose model=mor with model.sharing=cycle or middle_cycle, or model.kv=recursion",
        )
    if model.kv not in REUSING:
        return
    recursive = model.architecture == "recursive" and sequence and model.kv == "sequence"
    if model.architecture != "vanilla" and not recursive:
        raise ConfigError(
            "model.kv",
            model.kv,
            "reading an earlier depth's keys and values is for model=vanilla (and kv=sequence for "
            "a recursive model with a sequence sharing)",
            "choose model.kv=shared or recursion",
        )
    if not 2 <= model.kv_share <= size.n_layers:
        raise ConfigError(
            "model.kv_share",
            model.kv_share,
            f"depths that read one set number from 2 to size.n_layers={size.n_layers}",
            "type model.kv_share=2",
        )


def _check_capacity(model: ModelConfig) -> None:
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
    problem = None
    if len(capacity) != model.n_recursions:
        problem = f"needs one share for each of {model.n_recursions} recursions"
    elif any(not 0 < c <= 1 for c in capacity):
        problem = "a share of tokens lies above 0 and at most at 1"
    elif any(later > earlier for earlier, later in pairwise(capacity)):
        problem = "active tokens are nested, so capacities cannot rise"
    if problem:
        raise ConfigError("model.capacity", shown, problem, f"type 'model.capacity=[{example}]'")


def _check_relaxation(model: ModelConfig, size: SizeConfig) -> None:
    relaxation = model.relaxation
    if relaxation.type == "none":
        return
    if model.architecture == "vanilla":
        raise ConfigError(
            "model.relaxation.type",
            relaxation.type,
            "a vanilla model ties nothing that could be relaxed",
            "choose model=recursive or model=mor, or model.relaxation.type=none",
        )
    positive("model.relaxation.rank", relaxation.rank)
    positive("model.relaxation.prompt_length", relaxation.prompt_length)
    if relaxation.type in ("lora", "dora") and relaxation.rank > size.d_model:
        raise ConfigError(
            "model.relaxation.rank",
            relaxation.rank,
            f"above size.d_model={size.d_model}: a change of full rank is no saving",
            f"type model.relaxation.rank={max(1, size.d_model // 8)}",
        )


def check_start(
    full: tuple[ModelConfig, SizeConfig, int], started: tuple[ModelConfig, SizeConfig, int]
) -> None:
    """Raise ConfigError where a model cannot take the weights of the full one.

    Both are given as model, size and entries of the embedding.
    """
    (model, size, vocab), (own_model, own_size, own_vocab) = full, started
    if model.architecture != "vanilla" or model.kv not in ("recursion", "shared"):
        raise ConfigError(
            "train.init_from",
            model.name,
            "weights are taken from a vanilla model with keys and values at every depth",
            "name such a model",
        )
    pairs = [("data.vocab_size", vocab, own_vocab)]
    for group, one, own, names in (
        ("size", size, own_size, ("d_model", "n_heads", "n_kv_heads", "d_head", "d_ff")),
        ("model", model, own_model, ("norm_eps", "rope_theta")),
    ):
        pairs += [(f"{group}.{name}", getattr(one, name), getattr(own, name)) for name in names]
    needed = [f"{name}={value:g}" for name, value, own in pairs if value != own]
    if needed:
        raise ConfigError(
            "train.init_from",
            size.name,
            "weights are taken from a vanilla model of the same width and vocabulary",
            "type " + " ".join(needed),
        )


# -- routers -----------------------------------------------------------------------------------


def _check_router(model: ModelConfig) -> None:
    router = model.router
    one_of("model.router.type", router.type, ROUTER_TYPES)
    one_of("model.router.network", router.network, ROUTER_NETWORKS)
    one_of("model.router.activation", router.activation, ROUTER_ACTIVATIONS)
    one_of("model.router.sampling", router.sampling, ("aux_loss", "aux_router"))
    one_of("model.router.balancing", router.balancing, ("loss", "loss_free"))
    one_of("model.router.gating", router.gating, ("weighted", "plain"))
    positive("model.router.temperature", router.temperature)
    routed = router.type != "none"
    if routed != (model.architecture == "mor"):
        raise ConfigError(
            "model.router.type",
            router.type,
            f"does not go with model.architecture={model.architecture}",
            "MoR needs expert or token, the others none",
        )
    if routed:
        _check_activation(router)
        _check_learning(router)
        _check_warmup(router)
    if router.type == "token" and model.sharing.endswith("sequence"):
        raise ConfigError(
            "model.sharing",
            model.sharing,
            "token choice needs the same block at every depth",
            "choose cycle or middle_cycle",
        )


def _check_activation(router: RouterConfig) -> None:
    wrong = None
    if router.network == "random":
        if router.activation != "none":
            wrong = "a random score is the gate itself", "type model.router.activation=none"
    elif router.type == "expert" and router.activation == "softmax":
        wrong = "expert choice scores each token by itself", "choose sigmoid, tanh or none"
    elif router.type == "token" and router.activation in ("tanh", "none"):
        wrong = "token choice needs a share for each depth", "choose softmax or sigmoid"
    if wrong:
        raise ConfigError("model.router.activation", router.activation, *wrong)


def _check_learning(router: RouterConfig) -> None:
    """What cannot learn, or has nothing to learn from."""
    expert = router.type == "expert"
    if router.network == "random" and expert and router.sampling == "aux_router":
        raise ConfigError(
            "model.router.sampling",
            router.sampling,
            "nothing predicts a random choice",
            "type model.router.sampling=aux_loss, which a random router leaves out",
        )
    if router.network == "random" and not expert and router.balancing == "loss_free":
        raise ConfigError(
            "model.router.balancing",
            router.balancing,
            "random depths are balanced",
            "type model.router.balancing=loss, which a random router leaves out",
        )
    unlearned = router.sampling == "aux_router" if expert else router.balancing == "loss_free"
    learned = router.network != "random" and router.z_coeff == 0
    if router.gating == "plain" and learned and unlearned:
        setting = "sampling" if expert else "balancing"
        raise ConfigError(
            "model.router.gating",
            router.gating,
            f"with model.router.{setting}={getattr(router, setting)} no loss would reach the "
            "router that chooses",
            f"choose weighted, or model.router.{setting}={'aux_loss' if expert else 'loss'}",
        )


def _check_warmup(router: RouterConfig) -> None:
    kinds = (("capacity_warmup_steps", "expert"), ("balance_warmup_steps", "token"))
    for name, kind in kinds:
        value = getattr(router, name)
        if value < 0 or (value and router.type != kind):
            problem = f"a number of steps, and for model.router.type={kind} only"
            raise ConfigError(f"model.router.{name}", value, problem, f"type model.router.{name}=0")

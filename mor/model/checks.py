"""Which models can start from the weights of another one. No torch."""

from __future__ import annotations

from mor.config import ConfigError, ModelConfig, SizeConfig
from mor.model.components import is_plain
from mor.model.kv.spec import mode_of

INIT_METHODS = ("stepwise", "average", "lower", "upper", "random")  # of train.init_method


def has_all_weights(model: ModelConfig) -> bool:
    """Whether the model is a plain stack with keys and values at every depth."""
    mode = mode_of(model)
    own = mode.sources is None and not (mode.reads_first and mode.computes_later)
    return own and is_plain(model)


def check_start(
    full: tuple[ModelConfig, SizeConfig, int], started: tuple[ModelConfig, SizeConfig, int]
) -> None:
    """Raise ConfigError where a model cannot take the weights of the full one.

    Both are given as model, size and entries of the embedding.
    """
    (model, size, vocab), (own_model, own_size, own_vocab) = full, started
    if not has_all_weights(model):
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

"""Which models can start from the weights of another one. No torch."""

from __future__ import annotations

from mor.command_line import setting
from mor.config import ConfigError, ModelConfig, SizeConfig
from mor.model.components import is_plain
from mor.model.kv.spec import mode_of

INIT_METHODS = ("stepwise", "average", "lower", "upper", "random")  # of train.init_method


def has_all_weights(model: ModelConfig) -> bool:
    """Whether the model is a plain stack with keys and values at every depth."""
    mode = mode_of(model)
    own = mode.sources is None and not (mode.reads_first and mode.computes_later)
    return own and is_plain(model)


WIDTHS = ("d_model", "n_heads", "n_kv_heads", "d_head", "d_ff")


def check_start(
    full: tuple[ModelConfig, SizeConfig, int],
    started: tuple[ModelConfig, SizeConfig, int],
    given: object,
    size_file: bool = False,
) -> None:
    """Raise ConfigError where a model cannot take the weights of the full one.

    Both are given as model, size and entries of the embedding; `given` is what `train.init_from`
    names, `size_file` whether the full model's size is one that `size=<name>` names.
    """
    (model, size, vocab), (own_model, own_size, own_vocab) = full, started
    if not has_all_weights(model):
        raise ConfigError(
            "train.init_from",
            given,
            f"weights are taken from a vanilla model with keys and values at every depth, and this "
            f"one is {model.name}",
            "name a run of model=vanilla",
        )
    needed = []
    if vocab != own_vocab:
        needed.append(f"data.vocab_size={vocab}")
    if any(getattr(size, name) != getattr(own_size, name) for name in WIDTHS):
        names = [] if size_file else ["name", "n_layers", *WIDTHS]  # so that the name is right, too
        changed = [name for name in names if getattr(size, name) != getattr(own_size, name)]
        needed += [setting(f"size.{name}", str(getattr(size, name))) for name in changed]
        needed += [setting("size", size.name)] if size_file else []
    for name in ("norm_eps", "rope_theta"):
        if (value := getattr(model, name)) != getattr(own_model, name):
            needed.append(f"model.{name}={value:g}")
    if needed:
        raise ConfigError(
            "train.init_from",
            given,
            "weights are taken from a vanilla model of the same width and vocabulary",
            "type " + " ".join(needed),
        )

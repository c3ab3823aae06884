"""Start a recursive model from a full one (up-training; paper sec. 2.1). Design notes:

- which full layers a tied one starts from is plain arithmetic (`sources`), apart from the copying;
- unshared first and last layers start from the full model's first and last;
- a vanilla model of the same depth starts as the full one itself, whatever the method;
- stepwise takes layers at even steps, lower the first ones, upper the last ones, random some in
  order; average means over the layers at whose depths the tied one stands;
- where the depths are more or fewer than the full model's layers (135M: 32 for 30), depths are
  spread evenly over the layers; routers and relaxations start as in any new model.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mor.config import ConfigError
from mor.model.checks import INIT_METHODS, check_start
from mor.model.layout import Layout
from mor.model.lookup import one_of
from mor.model.transformer import Transformer


def sources(way: str, layout: Layout, n_layers: int, seed: int = 0) -> dict[int, tuple[int, ...]]:
    """For each unique layer the layers of the full model that it is the mean of.

    Raises ConfigError for a way that is not known, and where the full model has too few layers.
    """
    one_of("train.init_method", way, INIT_METHODS)
    edge = len(layout.prologue)
    inner = range(edge, n_layers - len(layout.epilogue))
    order = [layer for block in layout.recursions for layer in block]
    unique = sorted(set(order))
    if len(unique) > len(inner):
        problem = f"the full model has {len(inner)} layers for {len(unique)} of the block"
        raise ConfigError("train.init_method", way, problem, "start from a deeper model")
    taken = {
        "stepwise": lambda: spread(inner, len(unique)),
        "lower": lambda: inner[: len(unique)],
        "upper": lambda: inner[-len(unique) :],
        "random": lambda: sorted(random.Random(seed).sample(inner, len(unique))),
    }
    found: dict[int, tuple[int, ...]] = dict.fromkeys(layout.prologue, (0,))
    found |= dict.fromkeys(layout.epilogue, (n_layers - 1,))
    if way == "average":
        places = spread(inner, len(order))
        for layer in unique:
            found[layer] = tuple(p for p, at in zip(places, order, strict=True) if at == layer)
    else:
        found |= {layer: (p,) for layer, p in zip(unique, taken[way](), strict=True)}
    return found


def spread(layers: Sequence[int], count: int) -> list[int]:
    """`count` layers at even steps, the first and the last among them."""
    if count == 1:
        return [layers[0]]
    return [layers[round(i * (len(layers) - 1) / (count - 1))] for i in range(count)]


@torch.no_grad()
def initialise(model: Transformer, full: Transformer, way: str, seed: int = 0) -> Transformer:
    """Give a model the weights of a vanilla one of its width; returns it. Raises ConfigError."""
    check_start(
        (full.model, full.size, full.embed.num_embeddings),
        (model.model, model.size, model.embed.num_embeddings),
        given=f"{full.model.name}-{full.size.name}",
    )
    given = full.state_dict()
    mapping = sources(way, model.layout, len(full.layers), seed)
    for name, weight in model.named_parameters():
        if name.startswith("layers."):
            _, layer, rest = name.split(".", 2)
            weight.copy_(mean_of(given, [f"layers.{i}.{rest}" for i in mapping[int(layer)]]))
        elif name in given:
            weight.copy_(given[name])
    model.relaxation.start(model.layers, model.layout)
    return model


def mean_of(given: Mapping[str, Tensor], names: Sequence[str]) -> Tensor:
    return torch.stack([given[name] for name in names]).mean(0)

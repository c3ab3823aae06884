"""Networks of routers, and scores without one. Design notes:

- routers work in float32, also under autocast: in bfloat16 half of a sequence's scores would tie;
- a random router has no weights and no state: its score is a hash of seed, step, recursion and
  position, so it needs no generator, is the same for every micro-batch, and sees no future.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mor.config import RouterConfig
from mor.model.layers import Linear
from mor.model.routers.course import Groups
from mor.model.routers.spec import NETWORKS
from mor.model.transfer import sent


class LinearRouter(Linear):
    def __init__(self, d_in: int, d_out: int, temperature: float) -> None:
        super().__init__(d_in, d_out)
        self.temperature = temperature

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(x.float(), self.weight.float()) / self.temperature  # (T, out)


class MLPRouter(nn.Module):
    """Linear(d, w d), GELU, Linear(w d, out): w = 2, and 4 for the wide one (our choice)."""

    def __init__(self, d_in: int, d_out: int, temperature: float, width: int) -> None:
        super().__init__()
        self.hidden = Linear(d_in, width * d_in)
        self.out = Linear(width * d_in, d_out)
        self.temperature = temperature

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            hidden = F.linear(x.float(), self.hidden.weight.float()) / self.temperature
            return F.linear(F.gelu(hidden), self.out.weight.float())  # (T, out)


class EveryDepth:
    """The linear routers of all recursions as one map, of their weights as they are now."""

    def __init__(self, routers: Sequence[LinearRouter]) -> None:
        self.weight = torch.cat([one.weight.detach().float() for one in routers])  # (Nr, D)
        self.temperature = routers[0].temperature

    @classmethod
    def of(cls, routers: Sequence[nn.Module]) -> EveryDepth | None:
        """None: they are not linear, of one output and one temperature."""
        linear = [one for one in routers if isinstance(one, LinearRouter)]
        alike = {(len(one.weight), one.temperature) for one in linear}
        fits = len(linear) == len(routers) and [n for n, _ in alike] == [1]
        return cls(linear) if fits else None

    def score(self, groups: Groups, x: Tensor) -> Tensor:
        """What the router of each group's recursion makes of its states x (T, D): (T,)."""
        with torch.autocast(x.device.type, enabled=False):
            every = F.linear(x.float(), self.weight) / self.temperature  # (T, Nr)
        depths = np.repeat([r for r, _ in groups], [some.stop - some.start for _, some in groups])
        which = sent(depths, x.device)
        return every.gather(1, which[:, None]).squeeze(1)


def build_router(
    router: RouterConfig, d_model: int, d_out: int, temperature: float = 1.0
) -> nn.Module:
    """A router that learns; it reads states divided by the temperature."""
    width = NETWORKS[router.network]
    if not width:
        return LinearRouter(d_model, d_out, temperature)
    return MLPRouter(d_model, d_out, temperature, width)


def random_scores(positions: Tensor, seed: int, step: int, first: int, count: int = 1) -> Tensor:
    """Uniform in [0, 1) for `count` recursions from `first` on: two rounds of an integer hash."""
    columns = torch.arange(first, first + count, device=positions.device)
    key = (seed * 1_000_003 + step) * 0x9E3779B1 % (1 << 62)
    x = (positions[:, None] * 64 + columns) + key
    for factor in (0x2545F4914F6CDD1D, 0x1B873593CC9E2D51):
        x = x ^ ((x >> 29) & 0x7FFFFFFFF)
        x = x * factor  # wraps around in int64
    return ((x >> 32) & 0xFFFFFF).float() / (1 << 24)  # (T, count)


def z_loss(logits: Tensor) -> Tensor:
    """Mean squared log-sum-exp over a router's outputs."""  # (T, out)
    return logits.logsumexp(-1).square().mean()

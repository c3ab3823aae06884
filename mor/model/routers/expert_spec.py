"""Expert choice (paper sec. 2.2.1): a recursion chooses its tokens. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from mor.config import ConfigError, ModelConfig, RouterConfig, SizeConfig
from mor.model.recurrence.spec import RecurrenceSpec
from mor.model.routers.spec import (
    RouterSpec,
    check_activation,
    check_teachable,
    check_warmup,
    first_map_params,
    is_plain,
    is_random,
    network_params,
)

OF_TOKEN_CHOICE = ("balancing", "balance_coeff", "bias_update_rate", "balance_warmup_steps")
UNTAUGHT = (  # settings of what learns, for a random router
    "temperature",
    "sampling",
    "aux_coeff",
    "balancing",
    "balance_coeff",
    "bias_update_rate",
    "z_coeff",
)


@dataclass(frozen=True)
class ExpertSpec(RouterSpec):
    """`model.router.type=expert`."""

    def goes_with(self, recurrence: RecurrenceSpec) -> bool:
        return recurrence.routes

    def check(self, model: ModelConfig, aligned: bool) -> None:
        router = model.router
        scores_alone = ("expert choice scores each token by itself", "choose sigmoid, tanh or none")
        check_activation(router, ("softmax",), scores_alone)
        if is_random(router) and has_aux_router(router):
            raise ConfigError(
                "model.router.sampling",
                router.sampling,
                "nothing predicts a random choice",
                "type model.router.sampling=aux_loss, which a random router leaves out",
            )
        check_teachable(router, "sampling", has_aux_router(router), "aux_loss")
        check_warmup(router, "capacity_warmup_steps")

    def check_capacity(self, model: ModelConfig) -> None:
        """Raise ConfigError for capacities that are not nested shares."""
        capacity = model.capacity or ()
        example = ",".join(f"{share:.3g}" for share in falling(model.n_recursions))
        problem = None
        if len(capacity) != model.n_recursions:
            problem = f"needs one share for each of {model.n_recursions} recursions"
        elif any(not 0 < c <= 1 for c in capacity):
            problem = "a share of tokens lies above 0 and at most at 1"
        elif any(later > earlier for earlier, later in pairwise(capacity)):
            problem = "active tokens are nested, so capacities cannot rise"
        if problem:
            shown = "[" + ",".join(f"{c:g}" for c in capacity) + "]"
            raise ConfigError(
                "model.capacity", shown, problem, f"type 'model.capacity=[{example}]'"
            )

    def inactive(self, router: RouterConfig) -> tuple[str, ...]:
        names: tuple[str, ...] = OF_TOKEN_CHOICE
        if has_aux_router(router):
            names += ("aux_coeff",)
        if is_plain(router):  # raw logits rank, and no gate scales
            names += ("alpha",) if is_random(router) else ("alpha", "activation")
        return names + UNTAUGHT if is_random(router) else names

    def shares(
        self, model: ModelConfig, n_blocks: int, step: int | None = None
    ) -> tuple[float, ...]:
        """(Nr - r + 1) / Nr at recursion r; during warm-up a cosine from 1 to it."""
        target = model.capacity or falling(n_blocks)
        return warmed_up(target, model.router.capacity_warmup_steps, step)

    def planned_tokens(self, share: float, seq_len: int, nominal: bool) -> float:
        return share * seq_len if nominal else selected(share, seq_len)

    def depends_on_step(self, router: RouterConfig) -> bool:
        return bool(router.capacity_warmup_steps) or is_random(router)

    def has_stable_shapes(self, router: RouterConfig) -> bool:
        return not router.capacity_warmup_steps

    def max_violation(self, model: ModelConfig, taken: list[int], tokens: int) -> float:
        shares = zip(taken, self.shares(model, len(taken)), strict=True)
        loads = [count / tokens / share for count, share in shares if share < 1]
        return max(loads, default=1.0) - 1

    def shallower(self, model: ModelConfig) -> tuple[int, ...]:
        return tuple(range(1, model.n_recursions))

    def scored_blocks(self, model: ModelConfig, n_blocks: int) -> int:
        """Blocks that have a router of their own."""
        return n_blocks

    def params(self, model: ModelConfig, size: SizeConfig, n_blocks: int) -> int:
        each = network_params(model.router, size.d_model, 1)
        groups = 2 if has_aux_router(model.router) else 1
        return self.scored_blocks(model, n_blocks) * groups * each

    def token_flops(self, model: ModelConfig, size: SizeConfig, n_blocks: int) -> tuple[float, ...]:
        router, d = model.router, size.d_model
        weights = network_params(router, d, 1)
        each = 6.0 * weights
        if has_aux_router(router) and weights:  # reads detached states: no gradient to its input
            each += 6.0 * weights - 2.0 * first_map_params(router, d)
        return (each,) * n_blocks

    def token_params(self, model: ModelConfig, size: SizeConfig, n_blocks: int) -> tuple[int, ...]:
        groups = 2 if has_aux_router(model.router) else 1
        return (groups * network_params(model.router, size.d_model, 1),) * n_blocks


def has_aux_router(router: RouterConfig) -> bool:
    """Whether a second router predicts the choice at inference, instead of an auxiliary loss."""
    return router.sampling == "aux_router"


def falling(n: int) -> tuple[float, ...]:
    """The capacities of the paper: 1, (n - 1) / n, ... 1 / n."""
    return tuple((n - r) / n for r in range(n))


def warmed_up(target: tuple[float, ...], steps: int, step: int | None) -> tuple[float, ...]:
    """Capacities at a training step: a cosine from 1 to the target over `steps`."""
    if step is None or step + 1 >= steps:
        return target
    extra = 0.5 * (1 + math.cos(math.pi * (step + 1) / steps))
    return tuple(c + (1 - c) * extra for c in target)


def selected(capacity: float, seq_len: int) -> int:
    """Tokens of a sequence that expert choice selects: max(1, int(capacity x S))."""
    return max(1, int(capacity * seq_len))


EXPERT = ExpertSpec(
    "expert", "mor.model.routers.expert:ExpertChoice", routes=True, chooses_tokens=True
)

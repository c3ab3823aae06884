"""Token choice (paper sec. 2.2.1): a token chooses its depth. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from mor.config import ConfigError, ModelConfig, RouterConfig, SizeConfig
from mor.model.recurrence.spec import RecurrenceSpec
from mor.model.routers.expert_spec import UNTAUGHT, falling
from mor.model.routers.spec import (
    RouterSpec,
    check_activation,
    check_teachable,
    check_warmup,
    is_random,
    network_params,
)


@dataclass(frozen=True)
class TokenSpec(RouterSpec):
    """`model.router.type=token`."""

    def goes_with(self, recurrence: RecurrenceSpec) -> bool:
        return recurrence.routes

    def check(self, model: ModelConfig, aligned: bool) -> None:
        router = model.router
        shares = ("token choice needs a share for each depth", "choose softmax or sigmoid")
        check_activation(router, ("tanh", "none"), shares)
        if is_random(router) and is_loss_free(router):
            raise ConfigError(
                "model.router.balancing",
                router.balancing,
                "random depths are balanced",
                "type model.router.balancing=loss, which a random router leaves out",
            )
        check_teachable(router, "balancing", is_loss_free(router), "loss")
        check_warmup(router, "balance_warmup_steps")
        if not aligned:
            raise ConfigError(
                "model.sharing",
                model.sharing,
                "token choice needs the same block at every depth",
                "choose cycle or middle_cycle",
            )

    def inactive(self, router: RouterConfig) -> tuple[str, ...]:
        other = "balance_coeff" if is_loss_free(router) else "bias_update_rate"
        names = ("sampling", "aux_coeff", "capacity_warmup_steps", other)
        return names + UNTAUGHT if is_random(router) else names

    def shares(
        self, model: ModelConfig, n_blocks: int, step: int | None = None
    ) -> tuple[float, ...]:
        """As if perfectly balanced: the same as expert choice's."""
        return falling(n_blocks)

    def depends_on_step(self, router: RouterConfig) -> bool:
        return bool(router.balance_warmup_steps) or is_random(router)

    def has_stable_shapes(self, router: RouterConfig) -> bool:
        return False

    def max_violation(self, model: ModelConfig, taken: list[int], tokens: int) -> float:
        after = [*taken[1:], 0]
        largest = max((a - b) / tokens for a, b in zip(taken, after, strict=True))
        return largest * len(taken) - 1

    def shallower(self, model: ModelConfig) -> tuple[int, ...]:
        return tuple(range(1, model.n_recursions))

    def params(self, model: ModelConfig, size: SizeConfig, n_blocks: int) -> int:
        return network_params(model.router, size.d_model, model.n_recursions)

    def token_flops(self, model: ModelConfig, size: SizeConfig, n_blocks: int) -> tuple[float, ...]:
        return (6.0 * self.params(model, size, n_blocks), *(0.0,) * (n_blocks - 1))

    def token_params(self, model: ModelConfig, size: SizeConfig, n_blocks: int) -> tuple[int, ...]:
        return (self.params(model, size, n_blocks), *(0,) * (n_blocks - 1))


def is_loss_free(router: RouterConfig) -> bool:
    """Whether a bias balances the depths, instead of a loss."""
    return router.balancing == "loss_free"


TOKEN = TokenSpec("token", "mor.model.routers.token:TokenChoice", routes=True)

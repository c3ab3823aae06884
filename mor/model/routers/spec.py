"""What planning knows of a router: the torch-free half of `mor.model.routers`. The base routes
nothing: every token takes every block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mor.config import ConfigError, ModelConfig, RouterConfig, SizeConfig
from mor.model.layout import Layout
from mor.model.lookup import not_negative, one_of, positive
from mor.model.recurrence.spec import RecurrenceSpec

# Hidden width of a router's network in d; 0: linear; None: it has no weights
NETWORKS: dict[str, int | None] = {"linear": 0, "mlp": 2, "wide_mlp": 4, "random": None}
FROM_0 = (
    *("aux_coeff", "balance_coeff", "z_coeff", "bias_update_rate"),
    *("capacity_warmup_steps", "balance_warmup_steps"),
)
ACTIVATIONS = ("sigmoid", "tanh", "softmax", "none")


@dataclass(frozen=True)
class RouterSpec:
    """One value of `model.router.type`."""

    name: str
    module: str = "mor.model.routers.base:Router"
    routes: bool = False
    chooses_tokens: bool = False  # top-k over a sequence in training: it sees the future there
    nested: bool = True  # a block chooses among the tokens that the one before it took
    options: ClassVar[type | None] = None  # dataclass of settings of its own, below `model.`

    # -- what goes together ---------------------------------------------------------------------

    def goes_with(self, recurrence: RecurrenceSpec) -> bool:
        """Whether models of this architecture are routed like this."""
        return not recurrence.routes

    def split(self, model: ModelConfig, layout: Layout) -> Layout:
        """The layout, cut into the blocks that tokens are routed around."""
        return layout

    def check(self, model: ModelConfig, aligned: bool) -> None:
        """Raise ConfigError for settings that cannot be; `aligned`: see `sharing.Pattern`."""

    def check_capacity(self, model: ModelConfig) -> None:
        """Raise ConfigError for capacities (`model.capacity`) that cannot be."""

    def inactive(self, router: RouterConfig) -> tuple[str, ...]:
        """Settings below `model.router.` that nothing of the model depends on."""
        return tuple(name for name in RouterConfig.__dataclass_fields__ if name != "type")

    # -- planned work ---------------------------------------------------------------------------

    def shares(
        self, model: ModelConfig, n_blocks: int, step: int | None = None
    ) -> tuple[float, ...]:
        """Share of a sequence's tokens that each block takes at a training step (from 0); without
        one, after all warm-up."""
        return (1.0,) * n_blocks

    def planned_tokens(self, share: float, seq_len: int, nominal: bool) -> float:
        """Tokens of a sequence that a block takes; `nominal`: as the paper counts."""
        return share * seq_len

    def depends_on_step(self, router: RouterConfig) -> bool:
        """Whether a training forward needs to know its step."""
        return False

    def has_stable_shapes(self, router: RouterConfig) -> bool:
        """Whether every training step has the same shapes, to compile for."""
        return True

    def max_violation(self, model: ModelConfig, taken: list[int], tokens: int) -> float:
        """MaxVio: the largest load over what was planned for it, - 1."""
        return 0.0

    def shallower(self, model: ModelConfig) -> tuple[int, ...]:
        """Limits to a token's recursions at which a routed model is validated, too."""
        return ()

    # -- cost -----------------------------------------------------------------------------------

    def params(self, model: ModelConfig, size: SizeConfig, n_blocks: int) -> int:
        """Weights of all routers."""
        return 0

    def token_flops(self, model: ModelConfig, size: SizeConfig, n_blocks: int) -> tuple[float, ...]:
        """Exact FLOPs, backward included, of the router of each block, per token that it scores."""
        return (0.0,) * n_blocks

    def token_params(self, model: ModelConfig, size: SizeConfig, n_blocks: int) -> tuple[int, ...]:
        """Weights of the router of each block, passed by each token that it scores."""
        return (0,) * n_blocks


NO_ROUTER = RouterSpec("none")


def network_params(router: RouterConfig, d_model: int, out: int) -> int:
    """Weights of one router: linear, or Linear(d, w d), GELU, Linear(w d, out)."""
    width = NETWORKS[router.network]
    if width is None:
        return 0
    return width * (d_model**2 + d_model * out) if width else d_model * out


def first_map_params(router: RouterConfig, d_model: int) -> int:
    """Weights of the map that reads the states, of a router with one output."""
    return (NETWORKS[router.network] or 0) * d_model**2 or d_model


def is_random(router: RouterConfig) -> bool:
    """Whether the router has no weights: nothing teaches it."""
    return NETWORKS[router.network] is None


def is_plain(router: RouterConfig) -> bool:
    """Whether the block's output is not scaled by its gate."""
    return router.gating == "plain"


def check_settings(router: RouterConfig) -> None:
    """Raise ConfigError for values that no router knows."""
    one_of("model.router.network", router.network, NETWORKS)
    one_of("model.router.activation", router.activation, ACTIVATIONS)
    one_of("model.router.sampling", router.sampling, ("aux_loss", "aux_router"))
    one_of("model.router.balancing", router.balancing, ("loss", "loss_free"))
    one_of("model.router.gating", router.gating, ("weighted", "plain"))
    for name in ("alpha", "temperature"):
        positive(f"model.router.{name}", getattr(router, name))
    for name in FROM_0:
        not_negative(f"model.router.{name}", getattr(router, name))


def check_activation(router: RouterConfig, wrong: tuple[str, ...], why: tuple[str, str]) -> None:
    """Raise ConfigError for a wrong activation, or for any with a random router."""
    setting, activation = "model.router.activation", router.activation
    if is_random(router):
        if activation != "none":
            problem = "a random score is the gate itself"
            raise ConfigError(setting, activation, problem, "type model.router.activation=none")
    elif activation in wrong:
        raise ConfigError(setting, activation, *why)


def check_warmup(router: RouterConfig, own: str | None) -> None:
    """Raise ConfigError for steps of warm-up that are of another router."""
    for name, kind in (("capacity_warmup_steps", "expert"), ("balance_warmup_steps", "token")):
        value = getattr(router, name)
        if value and name != own:
            problem = f"for model.router.type={kind} only"
            raise ConfigError(f"model.router.{name}", value, problem, f"type model.router.{name}=0")


def check_teachable(router: RouterConfig, setting: str, unlearned: bool, instead: str) -> None:
    """Raise ConfigError where an ungated router would have nothing to learn from."""
    learned = not is_random(router) and router.z_coeff == 0
    if is_plain(router) and learned and unlearned:
        raise ConfigError(
            "model.router.gating",
            router.gating,
            f"with model.router.{setting}={getattr(router, setting)} no loss would reach the "
            "router that chooses",
            f"choose weighted, or model.router.{setting}={instead}",
        )

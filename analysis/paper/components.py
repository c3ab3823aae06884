"""What the paper's tables print of a model's components: one row of a mapping for each name."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from analysis.paper.runs import Run

NONE = "-"


@dataclass(frozen=True)
class Architecture:
    """How an architecture appears in the tables."""

    shares_layers: bool = True
    routed: bool = False


ARCHITECTURES = {
    "vanilla": Architecture(shares_layers=False),
    "recursive": Architecture(),
    "mor": Architecture(routed=True),
    "looped": Architecture(),
    "mod": Architecture(shares_layers=False, routed=True),
}

# Sharing patterns whose first and last layer are their own.
OWN_ENDS = frozenset({"middle_cycle", "middle_sequence"})

# The main table's word for a KV mode; and, by mode, the cell of the table of KV sharing.
KV_WORDS = {"recursion": "cache", "shared": "share"}
KV_CELLS: dict[str, Callable[[Run], str]] = {
    "recursion": lambda run: NONE,
    "shared": lambda run: f"{sharing(run)}-{run.recursions}",
    "hybrid": lambda run: f"hybrid-{run.recursions}",
}

# The setting that holds the coefficient of an expert router's sampling, or of a token router's
# balancing.
SAMPLING_COEFFICIENTS = {"aux_loss": "aux_coeff"}
BALANCING_COEFFICIENTS = {"loss": "balance_coeff", "loss_free": "bias_update_rate"}

# Cells that a network or an activation replaces: a random router has no score to scale.
NETWORK_CELLS = {
    "random": {
        "func": "random",
        **dict.fromkeys(("alpha", "arch", "sampling", "balancing", "coeff"), NONE),
    }
}
ACTIVATION_CELLS = {"none": {"alpha": NONE}}


def architecture(run: Run) -> Architecture:
    """The row of the run's architecture; one that the paper has not shares layers, unrouted."""
    return ARCHITECTURES.get(run.architecture, Architecture())


def sharing(run: Run) -> str:
    """The pattern by which layers are shared."""
    return str(run.setting("model.sharing")) if architecture(run).shares_layers else NONE


def unique_layers(run: Run) -> str:
    """As the paper writes them: 32, or 1+10+1 where the ends are their own."""
    number = run.unique_layers
    return f"1+{number - 2}+1" if sharing(run) in OWN_ENDS and number > 2 else str(number)


def kv_sharing(run: Run) -> str:
    """How keys and values are shared and by how many depths: `-`, `cycle-2`, `hybrid-3`."""
    kv = str(run.setting("model.kv", "recursion"))
    cell = KV_CELLS.get(kv)
    return cell(run) if cell else f"{kv}-{run.setting('model.kv_share', 2)}"


def router_cells(cells: dict[str, Any]) -> dict[str, Any]:
    """`cells` of a router, with those replaced that do not apply to its network."""
    replaced = NETWORK_CELLS.get(str(cells["arch"]), {})
    return {**cells, **{key: value for key, value in replaced.items() if key in cells}}

"""What limits a result: a code to act on, and a text to read."""

from dataclasses import dataclass
from enum import StrEnum


class Code(StrEnum):
    """What a caution is about. Code branches on these, never on a text."""

    # Points
    PENDING = "pending"
    UNFINISHED = "unfinished"
    DAMAGED = "damaged"
    REPEATED_DATA = "repeated_data"
    SEVERAL_CORPORA = "several_corpora"
    UNUSABLE_ROWS = "unusable_rows"
    SPLIT_MODEL = "split_model"
    NO_METRICS = "no_metrics"
    DECIMAL_COMMAS = "decimal_commas"
    GROUPED_BUDGETS = "grouped_budgets"
    UNUSUAL_COMPUTE = "unusual_compute"
    NAMES_ALIKE = "names_alike"
    LOSS_IN_BITS = "loss_in_bits"
    # Exponents and their intervals
    NO_MINIMUM = "no_minimum"
    NO_EXPONENT = "no_exponent"
    TWO_BUDGETS = "two_budgets"
    NO_INTERVAL = "no_interval"
    WEAK_INTERVAL = "weak_interval"
    BIAS_CORRECTED = "bias_corrected"
    NOT_CORRECTED = "not_corrected"
    ONE_SIDED_SIZE = "one_sided_size"
    BEST_LOSS_RISES = "best_loss_rises"
    SIZES_WITHOUT_CURVE = "sizes_without_curve"
    FEW_BEST_SIZES = "few_best_sizes"
    BEST_SIZE_FALLS = "best_size_falls"
    # Parametric laws
    TERM_VANISHED = "term_vanished"
    NOT_IDENTIFIED = "not_identified"
    WEAKLY_IDENTIFIED = "weakly_identified"
    FEW_STARTS_AGREE = "few_starts_agree"
    ONE_BUDGET = "one_budget"
    FEW_VALUES = "few_values"
    TRUNKS_UNKNOWN = "trunks_unknown"
    FEW_GROUPS = "few_groups"
    RESAMPLES_LEFT_OUT = "resamples_left_out"
    INTERVAL_HOLDS_ZERO = "interval_holds_zero"
    WIDE_INTERVAL = "wide_interval"
    OUTLIERS = "outliers"
    # Comparisons
    UPPER_BOUND = "upper_bound"
    NOT_COMPARED = "not_compared"
    LEADER_UNCLEAR = "leader_unclear"
    EXTRAPOLATED = "extrapolated"
    MULTIPLIERS_APART = "multipliers_apart"
    NARROW_INTERVALS = "narrow_intervals"
    LEFT_OUT_OF_CASE = "left_out_of_case"
    MOVED_FAR = "moved_far"
    # Recipes
    OPTIMUM_OUTSIDE = "optimum_outside"
    ONE_SIZE = "one_size"
    ONE_RAY = "one_ray"
    UNTUNED = "untuned"
    MIXED_RECIPES = "mixed_recipes"
    # Forecasts
    NO_FORECAST = "no_forecast"
    WITHIN_POINTS = "within_points"
    POINTS_CHANGED = "points_changed"
    # Designs
    BEYOND_THE_LAW = "beyond_the_law"
    BIASED_PARABOLAS = "biased_parabolas"
    NO_SUGGESTION = "no_suggestion"


@dataclass(frozen=True)
class Caution:
    """One sentence with its code; `reason` is the part of the text that a table shows alone."""

    code: Code
    text: str
    model: str | None = None
    reason: str = ""

    def __str__(self) -> str:
        return self.text

"""What a tune study found out beside the laws of a recipe: how sure they are, and what it costs to
leave them. `python -m analysis tune` writes it into the recipe file, per model; `compare` and the
report read it.

In the logarithms of the settings x, near the best ones x*,
loss = best (1 + (x - x*)' H (x - x*) / 2 + sum of s (x - x*)^3) and
x* = v - a (log N - log N0) - b (log D - log D0) for each setting, N0 and D0 the `centre`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ModelTuning:
    """Of one model: settings k in their order, natural logarithms."""

    settings: tuple[str, ...]
    centre: tuple[float, float]  # N0, D0
    best: tuple[tuple[float, float, float], ...]  # (v, a, b) of each setting
    covariance: tuple[tuple[float, ...], ...]  # (3k, 3k) of all of `best`, in its order
    curvature: tuple[tuple[float, ...], ...]  # H, (k, k), of the relative loss
    skew: tuple[float, ...]  # s of each setting
    curvature_spread: float  # standard deviation of H as a share of it, between sizes and noise
    tried: tuple[tuple[float, float], ...]  # x - x* of each setting, lowest and highest tried
    conditions: Mapping[str, Any]  # settings of its runs by dotted name; None: of any value

    def to_dict(self) -> dict[str, Any]:
        found = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {**found, "conditions": dict(self.conditions)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelTuning:
        """Raises KeyError, TypeError or ValueError where the values are of another form."""
        found = cls(
            tuple(str(name) for name in values["settings"]),
            (float(values["centre"][0]), float(values["centre"][1])),
            tuple((float(v), float(a), float(b)) for v, a, b in values["best"]),
            _matrix(values["covariance"]),
            _matrix(values["curvature"]),
            tuple(float(value) for value in values["skew"]),
            float(values["curvature_spread"]),
            tuple((float(low), float(high)) for low, high in values["tried"]),
            dict(values["conditions"]),
        )
        k = len(found.settings)
        square = [(found.covariance, 3 * k), (found.curvature, k)]
        if any(len(m) != n or any(len(row) != n for row in m) for m, n in square) or k == 0:
            raise ValueError("matrices of another shape")
        if {len(found.best), len(found.tried), len(found.skew)} != {k}:
            raise ValueError("not one entry for each setting")
        return found


def _matrix(rows: Any) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(value) for value in row) for row in rows)

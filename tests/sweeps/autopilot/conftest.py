"""`analysis` as it answers an autopilot: a toy study of two runs fits no law."""

from __future__ import annotations

import pytest

from sweeps.autopilot import fly

WIDTHS = [0.4, 0.1]  # half widths that the fits give, round by round


@pytest.fixture
def analysis(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """`analysis` as it answers: two toy runs fit no law. What was asked is noted."""
    asked: list[tuple[str, ...]] = []

    def told(command: str, *arguments: str):
        asked.append((command, *arguments))
        if command == "suggest":
            run = {"size": "9k", "budget": 6e8, "cost": 1e-6, "after": 0.2}
            return {"models": [{"runs": [run, run]}]}, ""
        done = sum(one[0] == "fit" for one in asked)
        width = WIDTHS[min(done, len(WIDTHS)) - 1]
        found = {"exponents": {"a": 0.5}, "interval": {"a": [0.5 - width, 0.5 + width]}}
        return {"models": {"vanilla": {**found, "identified": True}}}, ""

    monkeypatch.setattr(fly, "told", told)
    return asked

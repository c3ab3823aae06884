"""Rounds of `python -m sweeps autopilot`: what was known of a study, and what was done about it.

`studies/<name>/autopilot/round-0001.json` and so on, each written before its runs are launched. The
last one is what a restarted autopilot goes on from; together they are the trail from the first
points to the last.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ledger.errors import MalformedFile
from ledger.files import read_json, write_json
from ledger.part import Part, WrongValue
from ledger.plan_file import StudyFolder

AUTOPILOT_SCHEMA = 1
LAUNCH, STOP = "launch", "stop"  # actions
MET, SPENT, REFUSED = "met", "hours", "no suggestion"  # why it stops


@dataclass(frozen=True, kw_only=True)
class Known(Part):
    """An exponent of one model with its 95 % interval; None where its points give none."""

    model: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    why: str = ""  # there is none

    @property
    def half_width(self) -> float | None:
        if self.low is None or self.high is None:
            return None
        return (self.high - self.low) / 2


@dataclass(frozen=True, kw_only=True)
class Chosen(Part):
    """A run that is launched: a point of the study's plan with another seed."""

    run_id: str
    model: str
    size: str
    budget: float
    seed: int


@dataclass(frozen=True, kw_only=True)
class Round(Part):
    """One look at a study, and the action that followed."""

    number: int
    time: str  # UTC, ISO 8601
    until: str  # as typed
    limit_hours: float  # as typed
    held_before: float  # hours that the study's runs had held when the first round began
    held: float  # and now
    points: int = 0
    points_digest: str = ""
    known: tuple[Known, ...] = ()
    action: str  # launch | stop
    reason: str = ""
    runs: tuple[Chosen, ...] = ()  # that are launched
    price_hours: float = 0.0  # of what is left of them
    expected: dict[str, float] = field(default_factory=dict)  # half width after them, by model

    @property
    def spent(self) -> float:
        """Hours since the first round began."""
        return self.held - self.held_before

    @classmethod
    def read(cls, name: str, value: Any) -> Any:
        parts: dict[str, type[Part]] = {"known": Known, "runs": Chosen}
        return tuple(map(parts[name].from_dict, value)) if name in parts else value


def folder_of_rounds(study: StudyFolder) -> Path:
    return study.path / "autopilot"


def rounds(study: StudyFolder) -> list[Round]:
    """All rounds, in order. Raises MalformedFile."""
    found = []
    for file in sorted(folder_of_rounds(study).glob("round-*.json")):
        values = dict(read_json(file) or {})
        values.pop("schema", None)
        try:
            found.append(Round.from_dict(values))
        except WrongValue as wrong:
            raise MalformedFile(f"{file}: not a round ({wrong}); move it away") from None
    return found


def write_round(study: StudyFolder, made: Round) -> Path:
    """Write a round; returns its file."""
    file = folder_of_rounds(study) / f"round-{made.number:04d}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, {"schema": AUTOPILOT_SCHEMA, **made.to_dict()})
    return file

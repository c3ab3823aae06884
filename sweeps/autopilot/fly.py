"""The autopilot of one study. Design notes:

- `analysis` is a command here, as everywhere in this package: `fit --json` gives the exponents of
  approach 3 with their intervals, `suggest --json` the runs that shrink them most for what they
  cost. The intervals of isoFLOP minima are not what its runs are chosen for: those at the ends of a
  budget's sizes inform the law most, and a parabola little;
- a round is written before its runs are launched (`ledger.autopilot`). One that was killed, at any
  moment, is found by the next start: its runs are in its file, and a launch trains none twice;
- hours are those that the study's attempts have held since the first round, as the ledger has them;
  prices are the planner's, at the measured speed of a model and size where a run has shown one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rich.console import Console

from ledger.attempts import AttemptLog
from ledger.autopilot import (
    LAUNCH,
    MET,
    REFUSED,
    SPENT,
    STOP,
    Chosen,
    Known,
    Round,
    rounds,
    write_round,
)
from ledger.errors import UserError
from mor.config import Config, ConfigError
from mor.identity import run_id
from sweeps.autopilot.decide import Candidate, Points, decide, met, parse_until
from sweeps.commands.retry import runs_to_retry
from sweeps.plan import build_plan
from sweeps.study import kept_settings, launch_configs
from sweeps.tasks import Task
from sweeps.watch import OPEN, StudyView

POLL_S = 10.0  # between looks at jobs of a scheduler
ENDED = ("done", "diverged")


class Autopilot:
    """One study, its target and its hours."""

    def __init__(
        self,
        view: StudyView,
        until: str,
        hours: float,
        runs: int,
        console: Console,
        allow_mixed: bool = False,
    ) -> None:
        """Raises ConfigError for a target or hours that cannot be."""
        if not 0 < hours < math.inf:
            raise ConfigError("--gpu-hours", f"{hours:g}", "must be above 0", "type --gpu-hours 10")
        if runs < 1:
            raise ConfigError("--runs", runs, "must be above 0", "type --runs 3")
        self.until, self.asked = parse_until(until), until
        self.view, self.hours, self.runs, self.console = view, hours, runs, console
        self.mixed = ("--allow-mixed",) if allow_mixed else ()
        self.settings = dataclasses.replace(
            kept_settings(view.folder), runs_dir=str(view.ledger.runs_dir)
        )

    def fly(self) -> str:
        """Rounds until one stops; returns why: met | hours | no suggestion.

        Raises UserError, LaunchFailed where runs ended early: the same command goes on.
        """
        while True:
            self._finish()
            made, configs = self._round()
            self._say(made)
            if not self._stopped_like(made):
                write_round(self.view.folder, made)
            if made.action == STOP:
                return made.reason
            self._launch(configs)

    def _stopped_like(self, made: Round) -> bool:
        """Whether the newest round has already said so."""
        last = rounds(self.view.folder)[-1:]
        same = ("action", "until", "limit_hours", "points_digest", "reason")
        return made.action == STOP and any(
            all(getattr(one, name) == getattr(made, name) for name in same) for one in last
        )

    # -- launching ------------------------------------------------------------------------------

    def _finish(self) -> None:
        """Train what is open: runs of the newest round, and of the study's own plan."""
        self.view = self._anew()
        before = rounds(self.view.folder)
        named = before[-1].runs if before else ()
        known = {task.task_id: task for task in self.view.tasks if task.is_run}
        unknown = [one for one in named if one.run_id not in known]
        if unknown:  # killed between writing the round and launching it
            points = self._points_of_plan()
            self._launch([points.run(p.model, p.size, p.budget, p.seed) for p in unknown])
        look = self.view.look()
        again, _ = runs_to_retry(look, None, failed=True, diverged=False)
        if tasks := [known[name] for name in again if name in known]:
            self._refuse_beyond(tasks)
            self._launch([task.config for task in tasks])
        self._wait()

    def _refuse_beyond(self, tasks: Iterable[Task]) -> None:
        left, needed = self._left(), sum(task.gpu_hours for task in tasks)
        if needed > left:
            raise ConfigError(
                "--gpu-hours",
                f"{self.hours:g}",
                f"the study's open runs need about {needed:.3g} hours and {left:.3g} are left",
                f"type --gpu-hours {self.hours - left + 1.1 * needed:.3g}",
            )

    def _launch(self, configs: list[Config]) -> None:
        launch_configs(self.settings, configs)
        self.view = self._anew()

    def _anew(self) -> StudyView:
        return StudyView(self.view.folder.plan_file, self.view.ledger)

    def _wait(self) -> None:
        """Until runs have ended: a local launch has waited itself, a scheduler's has not."""
        with self.console.status("") as status:
            while True:
                rows = self._anew().look().rows
                still = [row for row in rows if row.state in OPEN]
                if not still:
                    break
                running = sum(row.state == "running" for row in still)
                ended = len(rows) - len(still)
                status.update(f"{ended} of {len(rows)} runs have ended, {running} are running")
                time.sleep(POLL_S)
        lost = [row.name for row in rows if row.state not in ENDED]
        if lost:
            raise UserError(
                f"autopilot: {len(lost)} runs ended early (python -m sweeps why {lost[0]}); "
                "the same command goes on with them"
            )

    # -- deciding -------------------------------------------------------------------------------

    def _held(self) -> float:
        cost = self._anew().look().cost
        return cost.gpu_hours + cost.core_hours

    def _held_by_rounds(self) -> float:
        """Hours of the runs that rounds have named, and of their trunks."""
        named = {run.run_id for made in rounds(self.view.folder) for run in made.runs}
        tasks = [task for task in self._anew().tasks if task.is_run and task.folder.run_id in named]
        folders = {task.folder.path for task in tasks}
        folders |= {trunk.path for task in tasks if (trunk := task.trunk(self.view.ledger))}
        now = time.time()
        return sum(one.hours(now) for path in folders for one in AttemptLog(path).read())

    def _left(self) -> float:
        before = rounds(self.view.folder)
        held = self._held()
        return self.hours - (held - (before[0].held_before if before else held))

    def _round(self) -> tuple[Round, list[Config]]:
        """Look at the study as it is and decide."""
        before, held = rounds(self.view.folder), self._held()
        start = before[0].held_before if before else held
        known, why = self._known()
        short = [one.model for one in known if not met(one, self.until)]
        candidates, refused = self._candidates(short)
        points = self._points_of_plan()
        candidates = self._priced(candidates, points)
        decision = decide(known, candidates, self.until, self.hours - (held - start))
        runs = [_chosen(one, points) for one in decision.runs]
        number, digest = self._points()
        refusal = f"{REFUSED}: {refused or why}" if decision.reason == REFUSED else decision.reason
        made = Round(
            number=len(before) + 1,
            time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            until=self.asked,
            limit_hours=self.hours,
            held_before=start,
            held=held,
            points=number,
            points_digest=digest,
            known=tuple(known),
            action=decision.action,
            reason=refusal,
            runs=tuple(chosen for chosen, _ in runs),
            price_hours=sum(run.hours for run in decision.runs),
            expected={run.model: run.after for run in decision.runs},
        )
        return made, [config for _, config in runs]

    def _points(self) -> tuple[int, str]:
        losses = {}
        for task in self.view.tasks:
            result = self.view.ledger.result(task.folder.run_id) if task.is_run else None
            if result is not None and result.done:
                losses[result.run_id] = result.loss
        text = json.dumps(losses, sort_keys=True)
        return len(losses), hashlib.sha256(text.encode()).hexdigest()[:16]

    def _known(self) -> tuple[list[Known], str]:
        found, why = told("fit", str(self.view.folder.path), *self.mixed)
        names = list(dict.fromkeys(task.config.curve for task in self.view.tasks if task.is_run))
        models = (found or {}).get("models", {})
        if found and not models and len(names) == 1:  # as `fit` prints a single curve
            models = {names[0]: found}
        self._refuse_variants(models, names)
        known = []
        for name in names:
            one = models.get(name, {})
            low, high = (one.get("interval") or {}).get(self.until.quantity) or (None, None)
            value = (one.get("exponents") or {}).get(self.until.quantity)
            if not one.get("identified", True):
                low = high = None
            told_why = "" if low is not None else (why or "the points do not identify it")
            known.append(Known(model=name, value=value, low=low, high=high, why=told_why))
        return known, why

    def _refuse_variants(self, curves: Iterable[str], names: Sequence[str]) -> None:
        """Raises UserError for a study whose runs of a model differ in more than its axes."""
        split = [one for one in curves if one not in names and one.split(" (")[0] in names]
        if split:
            raise UserError(
                f"autopilot: the runs of {split[0].split(' (')[0]} are several curves "
                f"({', '.join(split[:3])}), of which none can be continued; python -m analysis "
                f"tune {self.view.study} is for a study that varies a setting"
            )

    def _candidates(self, models: list[str]) -> tuple[list[Candidate], str]:
        """What is suggested for each of some models, in turns, so that all get their share."""
        each, refused = [], ""
        for model in models:
            asked = (str(self.view.folder.path), "--model", model, "--runs", str(self.runs))
            found, why = told("suggest", *asked, *self.mixed)
            refused = refused or why
            each.append(
                [
                    Candidate(
                        model,
                        run["size"],
                        run["budget"],
                        0.0,  # priced below, all at once
                        run["after"],
                    )
                    for one in (found or {}).get("models", [])
                    for run in one["runs"]
                ]
            )
        turns = max(map(len, each), default=0)
        return [some[i] for i in range(turns) for some in each if i < len(some)], refused

    def _priced(self, candidates: list[Candidate], points: Points) -> list[Candidate]:
        """With seeds that the study has not used, and the price of each. Raises UserError where its
        plan has no such point."""
        seeded = [
            dataclasses.replace(one, seed=points.next_seed(one.model, one.size, one.budget))
            for one in candidates
        ]
        configs = [points.run(one.model, one.size, one.budget, one.seed) for one in seeded]
        machine = dataclasses.replace(self.settings.cluster, gpu=self.view.plan.gpu)
        plan = build_plan(self.view.study, configs, self.view.ledger, machine)
        hours = {run.run_id: run.gpu_hours for run in plan.runs}
        return [
            dataclasses.replace(one, hours=hours[run_id(config)])
            for one, config in zip(seeded, configs, strict=True)
        ]

    def _points_of_plan(self) -> Points:
        return Points([task.config for task in self.view.tasks if task.is_run])

    # -- telling --------------------------------------------------------------------------------

    def _say(self, made: Round) -> None:
        say: Callable[[str], None] = lambda text: self.console.print(  # noqa: E731
            text, highlight=False, markup=False, soft_wrap=True
        )
        unit = self.view.plan.unit
        others = made.spent - self._held_by_rounds()
        by_others = f" ({others:.3g} by runs that no round has named)" if others > 0.001 else ""
        say(
            f"round {made.number}: {made.points} points, {made.spent:.3g} of "
            f"{made.limit_hours:g} {unit} spent{by_others}"
        )
        for one in made.known:
            if one.half_width is None:
                say(f"  {one.model}: {self.until.quantity} not known yet ({one.why})")
            else:
                enough = "  enough" if met(one, self.until) else ""
                say(
                    f"  {one.model}: {self.until.quantity} {one.value:.3f} +- {one.half_width:.3f} "
                    f"({one.low:.3f} to {one.high:.3f}){enough}"
                )
        if made.action == LAUNCH:
            say(f"  launching {len(made.runs)} runs for about {made.price_hours:.3g} {unit}:")
            for chosen in made.runs:
                say(f"    {chosen.run_id}")
        else:
            say(f"  stop: {REASONS.get(made.reason, made.reason)}")


def _chosen(one: Candidate, points: Points) -> tuple[Chosen, Config]:
    config = points.run(one.model, one.size, one.budget, one.seed)
    chosen = Chosen(
        run_id=run_id(config), model=one.model, size=one.size, budget=one.budget, seed=one.seed
    )
    return chosen, config


REASONS = {
    MET: "every model's exponent is known well enough",
    SPENT: "what is left of --gpu-hours pays for none of the suggested runs",
}


def told(command: str, *arguments: str) -> tuple[dict[str, Any] | None, str]:
    """What `python -m analysis COMMAND ... --json` says, or None and its sentence."""
    line = [sys.executable, "-m", "analysis", command, *arguments, "--json"]
    ended = subprocess.run(line, capture_output=True, text=True, check=False)
    if ended.returncode:
        last = ended.stderr.strip().splitlines()[-1:] or ["it ended without a word"]
        return None, last[0].removeprefix("error: ")
    return json.loads(ended.stdout), ""

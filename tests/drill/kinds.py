"""Every kind of fault: how it is injected into a site, and how many times it was.

A kind is a function of a `Trial`; it disturbs the study, and returns how many faults it injected.
After it, the same command must complete the study.
"""

from __future__ import annotations

import errno
import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ledger.damage import META
from tests.drill.field import Tally, failing_disk, jumping_clock, late_renames
from tests.drill.site import Command, Reference, Site, Wrong, tidy
from tests.drill.wandb_servers import server

STOPPED = (0, 2, 130)  # ended well, with a sentence, or stopped


@dataclass
class Trial:
    """One episode: a site, what it should end as, and chance."""

    site: Site
    finished: Site  # undisturbed, to be copied
    right: Reference
    chance: random.Random
    seconds: float  # that the undisturbed command takes here
    whole_curves: bool = True  # no line of metrics.jsonl may be missing
    more: tuple[str, ...] = ()  # settings that complete it
    environment: dict[str, str] = field(default_factory=dict)

    def moment(self) -> float:
        """A moment of a launch, seconds from its begin."""
        return self.chance.uniform(0.0, 1.1) * self.seconds

    def half_done(self) -> None:
        """From a finished study (all that is needed is there) or from nothing."""
        if self.chance.random() < 0.5:
            shutil.copytree(self.finished.cache, self.site.cache)

    def end(self, command: Command, codes: tuple[int, ...] = STOPPED) -> None:
        """A disturbed command may fail; it says so without a traceback."""
        ended = command.wait()
        if ended.code not in (*codes, -signal.SIGKILL):
            raise Wrong(f"a disturbed command ended with {ended.code}: {ended.output[-2500:]}")
        tidy(ended)


def _signalled(trial: Trial, number: int, times: int) -> int:
    trial.half_done()
    count = 0
    for _ in range(times):
        command = trial.site.launch()
        time.sleep(trial.moment())
        count += command.send(number)
        # before it has a handler of its own, a signal ends a process as the system does
        trial.end(command, (*STOPPED, -number))
    return count


def killed(trial: Trial) -> int:
    return _signalled(trial, signal.SIGKILL, 3)


def terminated(trial: Trial) -> int:
    return _signalled(trial, signal.SIGTERM, 3)


def warned(trial: Trial) -> int:
    return _signalled(trial, signal.SIGUSR2, 3)


def _on_a_failing_disk(trial: Trial, number: int) -> int:
    trial.half_done()
    tally = Tally(trial.site.root / "tally")
    for _ in range(2):
        at = int(10 ** trial.chance.uniform(0.0, 2.3))
        times = trial.chance.choice((1, 1, 3, 10**9))
        root = trial.site.root

        def before(at: int = at, times: int = times, root: Path = root) -> None:
            failing_disk(root, number, at, times, tally)

        trial.end(trial.site.launch(before=before))
    return min(tally.count(), 8)  # a full disk is one fault, however often it is asked


def disk_full(trial: Trial) -> int:
    return _on_a_failing_disk(trial, errno.ENOSPC)


def disk_error(trial: Trial) -> int:
    return _on_a_failing_disk(trial, errno.EIO)


# -- damage to what is there --------------------------------------------------------------------


def _needed_again(trial: Trial) -> None:
    """A finished study of which some runs are gone, so that it goes on from the trunks."""
    trial.site.copy_of(trial.finished)
    for folder in trial.site.ended():
        if trial.chance.random() < 0.5:
            shutil.rmtree(folder.path)


def _harm(trial: Trial, files: list[Path], harm: Callable[[Path, random.Random], bool]) -> int:
    chosen = trial.chance.sample(files, min(len(files), 4))
    return sum(harm(path, trial.chance) for path in chosen)


def _truncate(path: Path, chance: random.Random) -> bool:
    data = path.read_bytes()
    path.write_bytes(data[: chance.randrange(max(1, len(data)))])
    return bool(data)


def _flip(path: Path, chance: random.Random) -> bool:
    data = bytearray(path.read_bytes())
    if not data:
        return False
    bit = chance.randrange(8 * len(data))
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(bytes(data))
    return True


def _remove(path: Path, chance: random.Random) -> bool:
    if not path.exists():
        return False
    path.unlink()
    return True


def _checkpoint_files(site: Site) -> list[Path]:
    found = (path for folder in site.folders() for path in folder.checkpoints.glob("*/*"))
    return sorted(path for path in found if path.is_file())


def _plateau_files(site: Site) -> list[Path]:
    return [p for p in _checkpoint_files(site) if p.parent.name.startswith(("plateau", "step"))]


def _ledger_files(site: Site) -> list[Path]:
    names = ("status.json", "result.json", "result.digest", "attempts.jsonl")
    found = [folder.path / name for folder in site.folders() for name in names]
    found += [site.study.plan_file, site.study.settings_file]
    found += [launch.plan_file for launch in site.study.launches()]
    return [path for path in found if path.exists()]


def _configurations(site: Site) -> list[Path]:
    return [folder.config_file for folder in site.folders()]


def torn_checkpoints(trial: Trial) -> int:
    _needed_again(trial)
    return _harm(trial, _checkpoint_files(trial.site), _truncate)


def flipped_checkpoints(trial: Trial) -> int:
    """Of plateaus and rolling ones: nothing in a study reads a final one again."""
    _needed_again(trial)
    return _harm(trial, _plateau_files(trial.site), _flip)


def lost_checkpoint_files(trial: Trial) -> int:
    _needed_again(trial)
    return _harm(trial, _checkpoint_files(trial.site), _remove)


def torn_ledger(trial: Trial) -> int:
    _needed_again(trial)
    return _harm(trial, [*_ledger_files(trial.site), *_configurations(trial.site)], _truncate)


def flipped_ledger(trial: Trial) -> int:
    _needed_again(trial)
    return _harm(trial, _ledger_files(trial.site), _flip)


def damaged_metrics(trial: Trial) -> int:
    """In mid-training: of a folder that is finished, nothing reads or writes them again."""
    _stop_half_way(trial)
    trial.whole_curves = False
    files = [f.metrics_file for f in trial.site.folders() if f.metrics_file.exists()]
    files = [f for f in files if not (f.parent / "result.json").exists()]
    harm = trial.chance.choice((_truncate, _flip))
    count = _harm(trial, files, harm)
    for folder in trial.site.folders():  # so that each is written again
        if folder.metrics_file in files and folder.checkpoints.is_dir():
            shutil.rmtree(folder.checkpoints)
    return count


def lost_folders(trial: Trial) -> int:
    """A trunk, a final checkpoint, a run's file or the study's plan is gone."""
    _needed_again(trial)
    trial.whole_curves = False  # a trunk that is gone is trained as far as it is needed
    site, chance = trial.site, trial.chance
    trunks = [folder for folder in site.folders() if "-trunk-" in folder.run_id]
    victims = [*(folder.path for folder in trunks), *(folder.final for folder in site.ended())]
    victims += [folder.config_file for folder in site.folders()]
    victims += [site.study.plan_file, site.root / "studies"]
    count = 0
    for victim in chance.sample(victims, 3):
        if victim.is_dir():
            shutil.rmtree(victim)
        elif victim.exists():
            victim.unlink()
        else:
            continue
        count += 1
    return count


def _stop_half_way(trial: Trial) -> None:
    command = trial.site.launch()
    time.sleep(trial.chance.uniform(0.4, 0.9) * trial.seconds)
    command.send(signal.SIGKILL)
    trial.end(command)


def damaged_while_stopped(trial: Trial) -> int:
    """Killed in mid-study, and what was written last is torn or flipped."""
    _stop_half_way(trial)
    files = [*_checkpoint_files(trial.site), *_ledger_files(trial.site)]
    files += list(trial.site.runs.glob("*/claim.json"))
    newest = sorted(files, key=lambda path: path.stat().st_mtime)[-8:]
    harm = trial.chance.choice((_truncate, _flip))
    usable = [p for p in newest if p.parent.name != "final" or harm is _truncate or p.name == META]
    return 1 + _harm(trial, usable, harm)


# -- several, clocks, the network ---------------------------------------------------------------


def two_launchers(trial: Trial) -> int:
    """Two on one store, and one of them is killed."""
    trial.half_done()
    commands = [trial.site.launch() for _ in range(trial.chance.choice((2, 3)))]
    time.sleep(trial.moment())
    count = len(commands) - 1 + commands[0].send(signal.SIGKILL)
    for command in commands:
        trial.end(command)
    return count


def jumping_clocks(trial: Trial) -> int:
    trial.half_done()
    tally, seed = Tally(trial.site.root / "tally"), trial.chance.randrange(10**6)
    commands = [
        trial.site.launch(before=lambda i=i: jumping_clock(seed + i, tally))  # type: ignore[misc]
        for i in range(2)
    ]
    for command in commands:
        trial.end(command)
    return min(tally.count(), 4)


def seen_late(trial: Trial) -> int:
    trial.half_done()
    root, tally = trial.site.root, Tally(trial.site.root / "tally")
    journal = root / "renames"
    before = lambda: late_renames(root / "runs", journal, tally)  # noqa: E731
    commands = [trial.site.launch(before=before) for _ in range(2)]
    for command in commands:
        trial.end(command)
    return min(tally.count(), 4)


def pool_killed(trial: Trial) -> int:
    """`launch=local` as a user types it: workers of the pool die, or the launcher does."""
    trial.half_done()
    launcher = trial.site.pool()
    count = 0
    for _ in range(3):
        time.sleep(trial.chance.uniform(1.0, 6.0))
        victims = trial.site.workers(launcher)
        if victims and launcher.running():
            count += 1
            trial.chance.choice(victims).kill()
    if trial.chance.random() < 0.5:
        count += launcher.send(signal.SIGTERM)
    trial.end(launcher)
    trial.end(trial.site.pool(), (0,))
    trial.right.check(trial.site)
    return count


def _with_wandb(trial: Trial, kind: str) -> int:
    """Metrics go to a server that fails; one that hangs costs seconds, a failing one none."""
    shutil.copytree(trial.finished.cache, trial.site.cache)
    with server(kind) as (url, asked):
        ended = trial.site.launch(
            "runtime.wandb=online",
            "model=vanilla",
            WANDB_BASE_URL=url,
            WANDB_API_KEY="k" * 40,
            WANDB_SILENT="true",
        ).wait()
        if ended.code != 0:
            raise Wrong(f"W&B stopped a run: {ended.code} {ended.output[-1500:]}")
        tidy(ended)
        return min(asked(), 2)


def wandb_fails(trial: Trial) -> int:
    return _with_wandb(trial, "fails")


def wandb_hangs(trial: Trial) -> int:
    return _with_wandb(trial, "hangs")


def edited_study(trial: Trial) -> int:
    """The study's YAML is edited once its launch has been planned: the launch goes on as planned,
    and the next one has what is written then."""
    trial.half_done()
    site, before = trial.site, trial.site.yaml.read_text()
    edits = ("nonsense: [", before.replace("[1e8, 2e8]", "[1e8]"), "", before.replace("9k", "x"))
    command = site.launch()
    while command.running() and not site.study.plan_file.exists():
        time.sleep(0.01)
    count = int(command.running())
    site.yaml.write_text(trial.chance.choice(edits))
    trial.end(command, (0,))
    trial.right.check(site)
    site.yaml.write_text(before)
    return count


def killed_analysis(trial: Trial) -> int:
    """A report that is killed while it is made is there whole, or not at all."""
    trial.site.copy_of(trial.finished)
    report, count = trial.site.study.path / "report.html", 0
    for _ in range(4):
        command = trial.site.analyse("report", str(trial.site.study.path))
        time.sleep(trial.chance.uniform(0.0, 1.2))
        count += command.send(signal.SIGKILL)
        trial.end(command)
        if report.exists() and not report.read_text().rstrip().endswith("</html>"):
            raise Wrong("a partial report is taken for whole")
    trial.end(trial.site.analyse("report", str(trial.site.study.path)), (0,))
    if not report.read_text().rstrip().endswith("</html>"):
        raise Wrong("no whole report")
    return count


@dataclass(frozen=True)
class Kind:
    """A kind of fault; `weight`: episodes of it in a long drill, `short`: in a short one."""

    name: str
    inject: Callable[[Trial], int]
    weight: int
    short: int


KINDS = (
    Kind("kill -9", killed, 18, 3),
    Kind("SIGTERM", terminated, 8, 1),
    Kind("SIGUSR2", warned, 8, 1),
    Kind("disk full (ENOSPC)", disk_full, 10, 2),
    Kind("disk error (EIO)", disk_error, 10, 2),
    Kind("truncated checkpoints", torn_checkpoints, 8, 1),
    Kind("flipped bits in checkpoints", flipped_checkpoints, 8, 1),
    Kind("lost files of checkpoints", lost_checkpoint_files, 6, 1),
    Kind("truncated ledger files", torn_ledger, 8, 1),
    Kind("flipped bits in ledger files", flipped_ledger, 8, 1),
    Kind("damaged metrics", damaged_metrics, 6, 1),
    Kind("lost folders and files", lost_folders, 6, 1),
    Kind("killed, then damaged", damaged_while_stopped, 8, 1),
    Kind("two or three launchers", two_launchers, 8, 1),
    Kind("clocks that jump", jumping_clocks, 5, 1),
    Kind("renames seen late", seen_late, 5, 1),
    Kind("kill -9 of a pool's workers", pool_killed, 4, 0),
    Kind("W&B answers 500", wandb_fails, 2, 0),
    Kind("W&B hangs", wandb_hangs, 1, 0),
    Kind("study's YAML edited", edited_study, 5, 1),
    Kind("kill -9 of a report", killed_analysis, 4, 1),
)

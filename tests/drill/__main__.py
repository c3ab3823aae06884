"""python -m tests.drill [--short] [--seed N] [--only KIND] [--episode N] [--jobs N]

Injects faults into small studies and says, by kind, how many were survived; and for each episode
that was not, the command that repeats it. Exit code 1 where one was not.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.drill.kinds import KINDS, Kind, Trial
from tests.drill.site import Reference, Site, Wrong, preload, warm


@dataclass(frozen=True)
class Episode:
    """One kind with one seed."""

    kind: Kind
    number: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.seed}:{self.kind.name}:{self.number}"


@dataclass(frozen=True)
class Base:
    """The undisturbed study that all episodes are compared with."""

    site: Site
    right: Reference
    seconds: float


def main() -> int:
    options = _options()
    preload()
    root = Path(tempfile.mkdtemp(prefix="drill-", dir=options.folder))
    began = time.monotonic()
    base = _undisturbed(root)
    print(f"undisturbed study: {base.seconds:.1f} s; seed {options.seed}", flush=True)
    episodes = _episodes(options)
    results = root / "results"
    workers = []
    for job in range(options.jobs):
        pid = os.fork()
        if pid == 0:
            code = 70
            try:
                for episode in episodes[job :: options.jobs]:
                    _carry_out(episode, base, root, results, options.keep)
                code = 0
            finally:
                os._exit(code)
        workers.append(pid)
    ended = [os.waitpid(pid, 0)[1] for pid in workers]
    code = _table(results, len(episodes), time.monotonic() - began)
    if not options.keep:
        shutil.rmtree(root, ignore_errors=True)
    return code or int(any(ended))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.drill")
    parser.add_argument("--short", action="store_true", help="some 20 episodes in place of 140")
    parser.add_argument("--seed", default="0", help="a number, or one episode as the table has it")
    parser.add_argument("--jobs", type=int, default=2, help="episodes at a time")
    parser.add_argument("--folder", default=None, help="for the studies; default: a temporary one")
    parser.add_argument("--keep", action="store_true", help="keep the folders")
    return parser.parse_args()


def _undisturbed(root: Path) -> Base:
    corpus = root / "corpus"
    corpus.mkdir()
    for i in range(40):
        words = " ".join(f"{(i * 7 + j * j) % 97} scaling law {j % 13}" for j in range(120))
        (corpus / f"{i:02d}.txt").write_text(f"document {i}\n{words}\n")
    site = Site(root / "undisturbed", corpus)
    warm(site)
    again = Site(root / "again", corpus)
    shutil.copytree(site.cache, again.cache)
    began = time.monotonic()
    again.complete()
    seconds = time.monotonic() - began
    right = Reference.of(site)
    right.check(again)
    return Base(site, right, seconds)


def _episodes(options: argparse.Namespace) -> list[Episode]:
    if ":" in options.seed:
        seed, name, number = options.seed.split(":")
        [kind] = [kind for kind in KINDS if kind.name == name]
        return [Episode(kind, int(number), int(seed))]
    seed = int(options.seed)
    counts = ((kind, kind.short if options.short else kind.weight) for kind in KINDS)
    found = [Episode(kind, n, seed) for kind, count in counts for n in range(count)]
    random.Random(seed).shuffle(found)
    return found


def _carry_out(episode: Episode, base: Base, root: Path, results: Path, keep: bool) -> None:
    folder = root / re.sub(r"[^A-Za-z0-9]+", "-", episode.name)
    site = Site(folder, base.site.corpus)
    chance = random.Random(episode.name)
    trial = Trial(site, base.site, base.right, chance, base.seconds)
    injected, error = 0, None
    try:
        injected = episode.kind.inject(trial)
        site.complete()
        base.right.check(site, trial.whole_curves)
        site.complete()  # and nothing is left to do
        base.right.check(site, trial.whole_curves)
    except Wrong as wrong:
        error = str(wrong)
    except Exception:
        error = traceback.format_exc()
    entry = {"kind": episode.kind.name, "injected": max(injected, int(error is not None))}
    line = json.dumps({**entry, "error": error, "name": episode.name, "folder": str(folder)})
    with results.open("a") as file:
        file.write(line + "\n")
    if error is None and not keep:
        shutil.rmtree(folder, ignore_errors=True)
    mark = "." if error is None else "F"
    print(mark, end="", flush=True)


def _table(results: Path, episodes: int, seconds: float) -> int:
    entries = [json.loads(line) for line in results.read_text().splitlines()]
    injected: Counter[str] = Counter()
    survived: Counter[str] = Counter()
    for entry in entries:
        injected[entry["kind"]] += entry["injected"]
        survived[entry["kind"]] += entry["injected"] if entry["error"] is None else 0
    print(f"\n\n{'fault':32}{'survived':>9} /{'injected':>9}")
    for kind in KINDS:
        if kind.name in injected:
            print(f"{kind.name:32}{survived[kind.name]:9} /{injected[kind.name]:9}")
    print(f"{'all':32}{survived.total():9} /{injected.total():9}   in {seconds:.0f} s")
    bad = [entry for entry in entries if entry["error"] is not None]
    for entry in bad:
        print(f"\nmake drill SEED={entry['name']!r}\n{entry['error']}")
    if len(entries) != episodes:
        print(f"{episodes - len(entries)} of {episodes} episodes did not end")
    return int(bool(bad) or len(entries) != episodes)


if __name__ == "__main__":
    sys.exit(main())

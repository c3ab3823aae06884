"""What a plan says of its corpora: how much runs read, what is to be prepared, what is left out."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console

from mor.data.fingerprint import is_sharded
from mor.data.known import Known, asks_for_more, known
from sweeps.plan import Plan, Run
from sweeps.tables import count, counted, duration


def say_corpora(plan: Plan, console: Console) -> None:
    """Print a line or more for each corpus of a plan of which there is something to say."""
    for line in corpus_lines(plan):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def corpus_lines(plan: Plan) -> list[str]:
    corpora: dict[tuple[str, str], list[Run]] = {}
    for run in plan.runs:
        data = run.config.data
        corpora.setdefault((data.cache_dir, str(data.fingerprint)), []).append(run)
    return [line for runs in corpora.values() for line in _lines(runs, plan)]


def _lines(runs: list[Run], plan: Plan) -> Iterator[str]:
    data = runs[0].config.data
    there, name = known(data), f"data {data.name}"
    if is_sharded(data):
        yield f"{name}: {_reading(runs, plan, there)}"
    if there.train:
        repeats = [run.tokens / there.train for run in runs if run.tokens > there.train]
        if repeats:
            text = f"{counted(len(repeats), 'run')} of {len(runs)} read the corpus more than once"
            least = "" if there.exact else "at least "
            yield f"{name}: {text}, up to {least}{max(repeats):.1f} times"
    if there.tally.is_bad:
        yield f"{name}: {there.tally.report()}"


def _reading(runs: list[Run], plan: Plan, there: Known) -> str:
    """What of a corpus in shards the runs read, and what preparing the rest takes."""
    data = runs[0].config.data
    text = f"runs read up to {count(max(run.tokens for run in runs))}"
    has = f" of {count(there.train)}" if there.exact and there.train is not None else ""
    text += f"{has} training tokens"
    tasks = [one for one in plan.data if one.data.fingerprint == data.fingerprint]
    tasks = [one for one in tasks if one.data.cache_dir == data.cache_dir]
    largest = tasks[-1]
    if not largest.missing:
        more = f"; data.tokens={data.tokens:g} asks for more" if asks_for_more(data, there) else ""
        return f"{text}, all prepared{more}"
    most = "" if there.train is None else "at most "
    hours = sum(one.core_hours for one in tasks)
    return (
        f"{text}; to prepare, in windows of {count(data.window_tokens)}: {most}"
        f"{count(largest.missing)}, {largest.disk_bytes / 1e9:,.3g} GB, about {duration(hours)} of "
        "one CPU core (at an assumed speed)"
    )

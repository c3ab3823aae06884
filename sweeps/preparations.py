"""Data tasks of a plan: what its runs read of a sharded corpus, prepared before they train.

A corpus is one chain of tasks, each to the tokens that the runs of one budget need, so that small
budgets do not wait for the large ones. Several studies share what is there. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from ledger.ids import data_name
from ledger.plan_file import DataEntry
from ledger.store import Ledger
from mor.config import Config, DataConfig, to_dict
from mor.data.fingerprint import is_sharded
from mor.data.known import known
from mor.data.manifest import read_manifest
from mor.data.needs import Need, bytes_per_token, corpus_folder, held, need_of_rows, need_of_tokens
from mor.train.schedule import data_rows
from sweeps.tasks import Task, data_task

LEVELS = 8  # tasks of one corpus at most
TOKENS_PER_S = 400_000.0  # of one CPU core: 1.4 million were measured on two (docs/benchmarks.md)


@dataclass(frozen=True)
class Preparation:
    """A corpus up to the tokens that some runs need."""

    config: Config  # of one of these runs
    need: Need
    missing: int  # training tokens that are not there
    more: int  # of them, those that the task before does not prepare
    depends_on: tuple[str, ...]

    @property
    def data(self) -> DataConfig:
        return self.config.data

    @property
    def data_id(self) -> str:
        return data_name(self.data.name, str(self.data.fingerprint), self.need.train)

    @property
    def core_hours(self) -> float:
        """Hours of one CPU core, at an assumed speed."""
        return self.more / TOKENS_PER_S / 3600

    @property
    def disk_bytes(self) -> float:
        """What the missing tokens take."""
        return float(self.missing * bytes_per_token(self.data.vocab_size))

    def entry(self) -> DataEntry:
        """The task as `launch.plan_file` has it."""
        return DataEntry(
            data_id=self.data_id,
            name=self.data.name,
            fingerprint=str(self.data.fingerprint),
            tokens=self.need.train,
            val_tokens=self.need.val,
            missing=self.missing,
            core_hours=self.core_hours,
            status="planned" if self.missing else "done",
            depends_on=self.depends_on,
        )

    def worker_entry(self) -> DataEntry:
        """The task as workers need it."""
        return replace(self.entry(), config=to_dict(self.config))

    def task(self, ledger: Ledger) -> Task:
        return data_task(self.worker_entry(), ledger)


def need_of(config: Config) -> Need:
    """What a run reads, as planned, and what data.tokens asks for. Nothing of a packed corpus."""
    data, train = config.data, config.train
    need = need_of_rows(data, train.seq_len, data_rows(config), train.val_tokens)
    if is_sharded(data) and data.tokens is not None:
        need |= need_of_tokens(data, data.tokens)
    return need


def preparations_of(configs: Iterable[Config]) -> list[Preparation]:
    """The data tasks of some runs: for each sharded corpus, one for each budget's need."""
    corpora: dict[tuple[str, str], list[Config]] = {}
    for config in configs:
        if is_sharded(config.data):
            key = (config.data.cache_dir, str(config.data.fingerprint))
            corpora.setdefault(key, []).append(config)
    return [task for runs in corpora.values() for task in _chain(runs)]


def _chain(runs: list[Config]) -> list[Preparation]:
    by_budget: dict[float, tuple[Need, Config]] = {}
    for config in runs:
        need, before = need_of(config), by_budget.get(config.budget)
        by_budget[config.budget] = (need | before[0] if before else need, config)
    levels: list[tuple[Need, Config]] = []
    for _, (need, config) in sorted(by_budget.items()):
        if not levels or need.train > levels[-1][0].train or need.val > levels[-1][0].val:
            levels.append((need | levels[-1][0] if levels else need, config))
    if len(levels) > LEVELS:
        levels = levels[-1:]
    data = runs[0].data
    state = held(data, read_manifest(corpus_folder(data)))
    most = known(data).train
    found: list[Preparation] = []
    for need, config in levels:
        missing = state.missing(need)
        if missing and most is not None:
            missing = max(1, min(missing, most - state.train))
        more = missing - (found[-1].missing if found else 0)
        before_it = (found[-1].data_id,) if found else ()
        found.append(Preparation(config, need, missing, more, before_it))
    return found


def for_run(config: Config, preparations: Iterable[Preparation]) -> str | None:
    """The task that prepares what a run reads; None where its corpus is not sharded."""
    if not is_sharded(config.data):
        return None
    need = need_of(config)
    return next(
        one.data_id
        for one in preparations
        if one.data.fingerprint == config.data.fingerprint
        and one.data.cache_dir == config.data.cache_dir
        and one.need.train >= need.train
        and one.need.val >= need.val
    )

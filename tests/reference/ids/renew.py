"""Run ids and trunk ids of every study in conf/study, planned in process without torch.

`python -m tests.reference.ids.renew` rewrites ids.json, for a change that is meant to change ids.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from hydra_plugins.isoflop_sweeper.sweeper import expand
from ledger.store import Ledger
from mor.config import Config
from sweeps.config import SweepConfig
from sweeps.plan import build_plan
from sweeps.study import with_fingerprints

REPO = Path(__file__).parents[3]
FILE = Path(__file__).with_name("ids.json")
STUDIES = sorted(path.stem for path in (REPO / "conf" / "study").glob("*.yaml"))


def portable(config: Config) -> Config:
    """The standard library differs between Pythons: its fingerprint is a constant here."""
    if config.data.kind != "stdlib":
        return config
    return replace(config, data=replace(config.data, fingerprint="0" * 16))


def study_runs(study: str, *overrides: str) -> list[Config]:
    """The runs of one study, on any machine."""
    return composed(study, *overrides)[1]


def composed(study: str, *overrides: str) -> tuple[SweepConfig, list[Config]]:
    """A study as it is planned, and its runs."""
    groups = {path.name for path in (REPO / "conf").iterdir() if path.is_dir()}

    def resolved(lines: list[str]) -> dict[str, Any]:
        values = OmegaConf.to_container(compose("config", overrides=lines))
        assert isinstance(values, dict)
        return {str(key): value for key, value in values.items()}

    lines = [f"study={study}", *overrides]
    with initialize_config_dir(str(REPO / "conf"), version_base="1.3"):
        parsed = OverridesParser.create().parse_overrides(lines)
        config, runs = expand(resolved, parsed, groups)
    return config, [portable(run) for run in with_fingerprints(runs)]


def study_ids(study: str, *overrides: str) -> dict[str, list[str]]:
    """The ids of one study's plan in an empty run store, sorted."""
    config, runs = composed(study, *overrides)
    with tempfile.TemporaryDirectory() as folder:
        plan = build_plan(config.study.name, runs, Ledger(Path(folder)), config.cluster)
    return {
        "runs": sorted(run.run_id for run in plan.runs),
        "trunks": sorted({run.trunk_id for run in plan.runs if run.trunk_id}),
    }


if __name__ == "__main__":
    ids = {study: study_ids(study) for study in STUDIES}
    FILE.write_text(json.dumps(ids, indent=1) + "\n")

"""The ids of every study's runs and trunks are those on record in tests/reference/ids/ids.json."""

from __future__ import annotations

import json
import re

import pytest

from tests.conftest import REPO
from tests.reference.ids.renew import FILE, STUDIES, study_ids

RECORDED = json.loads(FILE.read_text())
REMEDY = (
    "ids of study={} changed, so finished runs would train again: make a new field inactive at "
    "its default (`where_set` in mor/config.py); if ids are meant to change, run "
    "`python -m tests.reference.ids.renew` and say why in docs/decisions.md"
)


def test_every_study_is_recorded() -> None:
    assert sorted(RECORDED) == STUDIES


@pytest.mark.parametrize("study", STUDIES)
def test_ids_are_those_on_record(study: str) -> None:
    assert study_ids(study) == RECORDED[study], REMEDY.format(study)


def test_a_changed_value_is_caught() -> None:
    changed = study_ids("quick", "train.weight_decay=0.0625")
    assert not set(changed["runs"]) & set(RECORDED["quick"]["runs"])
    assert not set(changed["trunks"]) & set(RECORDED["quick"]["trunks"])


@pytest.mark.parametrize("page", ["README.md", "mor/__main__.py"])
def test_ids_that_a_page_shows_are_those_of_a_plan(page: str) -> None:
    shown = set(re.findall(r"[a-z]+-\w+-[\d.]+e\d+-[0-9a-f]{8}", (REPO / page).read_text()))
    recorded = {run for study in RECORDED.values() for run in study["runs"]}
    assert shown
    assert shown <= recorded

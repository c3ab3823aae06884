"""What a study has lost or finds damaged is set aside, made again to the same bits, and said."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from analysis.points.run_store import read_study
from ledger.attempts import AttemptLog
from ledger.damage import META, aside
from ledger.errors import DamagedFile, UserError
from ledger.folder import RunFolder
from ledger.plan_file import StudyFolder, read_plan
from mor.config import Config
from sweeps import backends
from sweeps.__main__ import _again
from sweeps.backends.base import LaunchFailed
from sweeps.commands.find import find_folder, find_target, study_view
from sweeps.config import sweep_config
from sweeps.ranks import Order
from sweeps.study import launch_configs
from tests.conftest import toy_runs
from tests.sweeps.inline import Inline

SHORT, LONG = 16, 32  # steps of the two budgets, which share a trunk


@pytest.fixture(scope="module", autouse=True)
def inline() -> Iterator[None]:
    backends.register("inline", Inline)
    yield
    backends._REGISTERED.pop("inline")


@dataclass
class Store:
    """A run store with its study, and what the runs are."""

    root: Path
    configs: list[Config]

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def study(self) -> StudyFolder:
        return StudyFolder(self.root / "studies" / "healed")

    def launch(self, evaluate: str | None = None) -> None:
        study = {"name": "healed", **({"evaluate": evaluate} if evaluate else {})}
        values = {
            **{"launch": {"mode": "inline"}, "cluster": {}, "study": study},
            **{"runs_dir": str(self.runs), "studies_dir": str(self.root / "studies")},
        }
        launch_configs(sweep_config(values), self.configs)

    def folders(self, part: str) -> list[RunFolder]:
        """The folders whose name has `part`, by name."""
        found = (path for path in sorted(self.runs.iterdir()) if part in path.name)
        return [RunFolder(path) for path in found]

    @property
    def trunk(self) -> RunFolder:
        return self.folders("trunk")[0]

    @property
    def plateaus(self) -> list[Path]:
        """Plateau ends of the trunk, short budget first."""
        return sorted(self.trunk.checkpoints.glob("plateau-*"))

    @property
    def ended(self) -> list[RunFolder]:
        return [folder for folder in self.folders("") if "trunk" not in folder.run_id]

    def remove_runs(self) -> None:
        """So that the trunk's plateaus are needed again."""
        for folder in self.ended:
            shutil.rmtree(folder.path)

    def weights(self) -> dict[str, dict[str, str]]:
        """Digests of the final weights and optimizer state, by run."""
        metas = {f.run_id: json.loads((f.final / META).read_text()) for f in self.ended}
        return {
            run: {name: digest for name, digest in meta["files"].items() if name != ".metadata"}
            for run, meta in metas.items()
        }  # .metadata numbers each save

    def measured(self) -> dict[str, dict]:
        """What the results say that no clock has part in."""
        found = {f.run_id: f.result().to_dict() for f in self.ended}
        timed = ("throughput", "finished")
        return {
            name: {key: value for key, value in result.items() if key not in timed}
            for name, result in found.items()
        }

    def losses(self) -> dict[str, list[tuple[int, float]]]:
        lines = {f.run_id: f.metrics_file.read_text().splitlines() for f in self.folders("")}
        return {
            name: [(json.loads(line)["step"], json.loads(line)["loss"]) for line in all_lines]
            for name, all_lines in lines.items()
        }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, architectures, tiny) -> Store:
    root = tmp_path_factory.mktemp("undisturbed")
    make = toy_runs(root, architectures, tiny)
    store = Store(root, [make("mor", steps=SHORT), make("mor", steps=LONG)])
    store.launch()
    assert [folder.result().done for folder in store.ended] == [True, True]
    assert len(store.plateaus) == 2
    return store


@pytest.fixture
def store(undisturbed, tmp_path) -> Store:
    """A copy of the undisturbed store, to be damaged."""
    for name in ("runs", "studies"):
        shutil.copytree(undisturbed.root / name, tmp_path / name)
    return Store(tmp_path, undisturbed.configs)


def remove(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path, seed: int = 0) -> None:
    data = bytearray(path.read_bytes())
    bit = random.Random(seed).randrange(8 * len(data))
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(bytes(data))


def is_whole(store: Store, undisturbed: Store) -> None:
    """The same weights, numbers and curves as the undisturbed study, in files that are whole."""
    assert store.weights() == undisturbed.weights()
    assert store.measured() == undisturbed.measured()
    assert store.losses() == undisturbed.losses()
    assert {r.run_id for r in read_plan(store.study.plan_file).runs} == set(store.weights())
    for folder in store.folders(""):
        assert folder.damage() is None
        assert not [path for path in folder.path.rglob("*.tmp") if path.is_dir()]


CHECKPOINT_FILES = [".metadata", "__0_0.distcp", META]


@pytest.mark.parametrize("harm", [remove, truncate, empty, flip])
@pytest.mark.parametrize("name", CHECKPOINT_FILES)
@pytest.mark.parametrize("which", [0, 1])
def test_a_damaged_plateau_is_trained_again(store, undisturbed, capsys, which, name, harm):
    store.remove_runs()
    harm(store.plateaus[which] / name)
    store.launch()
    is_whole(store, undisturbed)
    assert len(aside(store.trunk.path)) == 1
    said = capsys.readouterr().out
    assert said.count(store.plateaus[which].name) == 1
    store.launch()
    assert store.plateaus[which].name not in capsys.readouterr().out  # said once


@pytest.mark.parametrize("harm", [remove, truncate, empty])
@pytest.mark.parametrize("name", CHECKPOINT_FILES)
def test_a_result_whose_checkpoint_is_damaged_is_made_again(store, undisturbed, capsys, name, harm):
    run = store.ended[0]
    harm(run.final / name)
    store.launch()
    is_whole(store, undisturbed)
    assert run.run_id in capsys.readouterr().out


@pytest.mark.parametrize("harm", [remove, truncate, empty, flip])
def test_a_damaged_result_is_made_again(store, undisturbed, capsys, harm):
    run = store.ended[1]
    harm(run.result_file)
    store.launch()
    is_whole(store, undisturbed)
    assert (run.run_id in capsys.readouterr().out) == (harm is not remove)


@pytest.mark.parametrize("seed", range(12))
def test_any_flipped_bit_of_a_result_or_meta_is_found(store, undisturbed, seed):
    """Also one that leaves valid JSON with another number in it."""
    store.remove_runs()
    for path in store.plateaus:
        flip(path / META, seed)
    store.launch()
    for folder in store.ended:
        flip(folder.result_file, seed)
        assert folder.damage() is not None
    store.launch()
    is_whole(store, undisturbed)


def test_weights_that_are_damaged_when_they_are_scored_are_made_again(store, undisturbed):
    run = store.ended[1]
    flip(run.final / "__0_0.distcp")
    assert run.damage() is None  # its size says nothing
    store.launch(evaluate="corpus")
    is_whole(store, undisturbed)
    assert [path.name for path in aside(run.path)] == [".damaged-final-1"]
    first = run.evaluation("corpus")
    assert first is not None
    flip(run.evaluation_file("corpus"))
    assert run.evaluation("corpus") is None
    store.launch(evaluate="corpus")
    assert run.evaluation("corpus").scores == first.scores


def test_retry_of_a_run_finds_flipped_bits_of_its_weights(store, undisturbed, capsys):
    store.launch()  # its plan names this store, no longer the one that it was copied from
    whole, flipped = store.ended
    flip(flipped.final / "__0_0.distcp")
    studies = str(store.root / "studies")
    for run, damaged in ((whole, False), (flipped, True)):
        _again(run.run_id, Path(studies), failed=True, diverged=False)
        assert bool(aside(run.path)) is damaged
    capsys.readouterr()
    is_whole(store, undisturbed)


def test_a_retry_that_is_refused_says_only_what_was_done(store, undisturbed, capsys, monkeypatch):
    store.launch()
    run = store.ended[0]
    flip(run.final / "__0_0.distcp")
    studies = store.root / "studies"

    def silent(*_: object) -> None:
        raise UserError("no answer")

    capsys.readouterr()
    with monkeypatch.context() as broken:
        broken.setattr(Inline, "prepare", silent)
        with pytest.raises(UserError):
            _again(run.run_id, studies, failed=True, diverged=False)
    said = capsys.readouterr().out
    assert run.run_id in said
    assert "set aside" in said
    assert "made again" not in said.splitlines()[0]
    assert aside(run.path)
    _again(run.run_id, studies, failed=True, diverged=False)
    is_whole(store, undisturbed)


def half_deleted_run(store: Store) -> None:
    folder = store.ended[0]
    for path in (folder.config_file, folder.status_file, folder.result_file):
        path.unlink()
    shutil.rmtree(folder.checkpoints)


def result_without_checkpoint(store: Store) -> None:
    shutil.rmtree(store.ended[0].final)


def checkpoint_without_result(store: Store) -> None:
    store.ended[0].result_file.unlink()


def trunk_is_gone(store: Store) -> None:
    long = store.ended[0]
    shutil.rmtree(store.trunk.path)
    shutil.rmtree(long.path)


def trunk_is_half_gone(store: Store) -> None:
    shutil.rmtree(store.plateaus[0])
    store.trunk.config_file.unlink()
    store.remove_runs()


def plan_is_gone(store: Store) -> None:
    store.study.plan_file.unlink()


@pytest.mark.parametrize(
    "harm",
    [
        *(half_deleted_run, result_without_checkpoint, checkpoint_without_result),
        *(trunk_is_gone, trunk_is_half_gone, plan_is_gone),
    ],
)
def test_what_is_gone_is_made_again(store, undisturbed, harm: Callable[[Store], None]):
    harm(store)
    store.launch()
    is_whole(store, undisturbed)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("harm", [truncate, empty, flip])
def test_the_ledgers_own_files_heal(store, undisturbed, harm, seed):
    chance = random.Random(seed)
    store.remove_runs()
    shutil.rmtree(chance.choice(store.plateaus))
    trunk = store.trunk
    files = [trunk.status_file, trunk.config_file, trunk.attempts_file, store.study.plan_file]
    for path in chance.sample(files, 2):
        harm(path)
    store.launch()
    is_whole(store, undisturbed)


def test_a_flipped_bit_within_the_metrics_costs_its_line_only(store, undisturbed):
    file = store.trunk.metrics_file
    lines = file.read_bytes().splitlines(keepends=True)
    at = len(lines) // 2
    file.write_bytes(b"".join([*lines[:at], b"\xff" + lines[at][1:], *lines[at + 1 :]]))
    store.remove_runs()
    shutil.rmtree(store.plateaus[1])
    store.launch()
    assert store.weights() == undisturbed.weights()
    expected = undisturbed.losses()[store.trunk.run_id]
    assert store.losses()[store.trunk.run_id] == [*expected[:at], *expected[at + 1 :]]


def test_metrics_that_are_gone_stay_gone_and_are_said(store, undisturbed):
    """Weights are worth more than their curve: nothing is trained again for it."""
    run = store.ended[0]
    run.metrics_file.unlink()
    run.result_file.unlink()
    store.launch()
    assert store.weights() == undisturbed.weights()
    assert store.measured() == undisturbed.measured()
    assert "metrics.jsonl ends at step 0 and training goes on at 32" in run.log_file.read_text()


def test_a_result_alone_is_whole_and_said(store, undisturbed, capsys):
    """Whoever removes checkpoints/ to make room keeps the result; it costs no training again."""
    run = store.ended[0]
    shutil.rmtree(run.checkpoints)
    text = run.result_file.read_text()
    store.launch()
    assert run.result_file.read_text() == text
    assert not run.checkpoints.exists()
    assert "1 of the runs" in capsys.readouterr().out


@pytest.mark.parametrize("harm", [truncate, empty, flip])
def test_a_damaged_plan_of_a_study_is_read_from_its_launches(store, harm):
    whole = read_plan(store.study.plan_file)
    harm(store.study.plan_file)
    assert {run.run_id for run in read_plan(store.study.plan_file).runs} == {
        r.run_id for r in whole.runs
    }
    view = study_view("healed", store.root / "studies")
    assert {row.state for row in view.rows()} == {"done"}
    assert view.ledger.runs_dir == Path(whole.runs_dir)
    assert len(read_study(store.study.path).run_ids) == len(whole.runs)


def test_a_damaged_plan_of_another_study_stands_in_nobodys_way(store):
    studies = store.root / "studies"
    other = StudyFolder(studies / "other")
    shutil.copytree(store.study.path, other.path)
    shutil.rmtree(other.path / "launches")
    truncate(other.plan_file)
    run = store.ended[0].run_id
    assert find_target(run, studies).view.study == "healed"
    assert find_folder(run, studies, store.runs).run_id == run
    with pytest.raises(DamagedFile):
        find_target("nothing-of-the-kind", studies)


def test_a_task_that_ends_without_what_it_was_to_write_fails_once(tmp_path, toy_run, monkeypatch):
    store = Store(tmp_path, [toy_run("vanilla")])
    monkeypatch.setattr(Order, "carry_out", lambda order, hooks: None)
    with pytest.raises(LaunchFailed):
        store.launch()
    attempts = [len(AttemptLog(folder.path).read()) for folder in store.folders("")]
    assert max(attempts) == 1

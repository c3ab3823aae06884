"""`python -m mor inspect`: the measures of validation on any text, for every architecture."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from ledger.folder import RunFolder
from mor.__main__ import app, main
from mor.config import ConfigError, ModelConfig, SizeConfig, UserError
from mor.evaluate.depth_page import page
from mor.evaluate.inspection import inspect, lines_of, text_rows
from mor.evaluate.inspection_files import write
from mor.model.components import router_of
from mor.train.initial import trained_model
from mor.train.run import Hooks, train_run
from tests.conftest import toy_runs
from tests.mor.train.test_variants import MODELS as VARIANTS

HOSTILE = "<script>throw 1</script> & scaling law 7 ]]> é\n" * 9
NAMES = ("vanilla", "recursive", "mor", "mor_token", *VARIANTS)


@pytest.fixture(scope="module")
def runs(
    tmp_path_factory: pytest.TempPathFactory,
    architectures: dict[str, ModelConfig],
    tiny: SizeConfig,
) -> dict[str, Path]:
    """A finished run of each architecture, with a checkpoint of the way."""
    root = tmp_path_factory.mktemp("inspected")
    make = toy_runs(root, {**architectures, **VARIANTS}, tiny)
    found = {}
    for name in NAMES:
        config = make(name, steps=6)
        config = replace(config, runtime=replace(config.runtime, checkpoint_s=0.0))
        found[name] = root / "runs" / f"{name}-tiny-1-00000000"
        train_run(config, RunFolder(found[name]), None, Hooks())
    return found


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "mine.txt"
    path.write_text(HOSTILE)
    return path


@pytest.mark.parametrize("name", NAMES)
def test_held_out_rows_give_the_numbers_of_the_final_validation(
    runs: dict[str, Path], name: str
) -> None:
    found = inspect(runs[name], None, "final")
    (only,) = found.measured
    result = json.loads(RunFolder(runs[name]).result_file.read_text())
    told = only.as_json()
    assert told["loss"]["val_nll_causal"] == result["loss"]["val_nll_causal"]
    assert told["routing"] == result.get("routing")
    assert told["kv_statistics"] == result.get("kv_statistics")
    said = list(lines_of(found))
    assert all("\n" not in line.strip() for line in said)
    ranks = router_of(trained_model(runs[name]).model).chooses_tokens
    assert any("top-k" in line for line in said) == ranks
    assert not any("router scores" in line for line in said)


@pytest.mark.parametrize("name", NAMES)
def test_every_loss_that_is_printed_has_its_bits_per_byte(
    runs: dict[str, Path], name: str, text: Path
) -> None:
    found = inspect(runs[name], text, "final")
    (only,) = found.measured
    n, size = found.text.tokens, len(HOSTILE.encode())
    said = [line for line in lines_of(found) if line.strip().startswith("loss")]
    number = r"(\d+\.\d{4})"
    pairs = [
        (float(nats), float(bits))
        for line in said
        for pattern in (f"{number} nats per token, {number} bits", rf": {number} \({number}\)")
        for nats, bits in re.findall(pattern, line)
    ]
    measured = only.validation
    known = [measured.causal.nll]
    known += [measured.topk.nll] if measured.topk is not measured.causal else []
    by_depth = measured.routing.nll_by_depth if measured.routing else measured.nll_by_depth or {}
    losses = list(by_depth.values() if isinstance(by_depth, dict) else by_depth)
    known += losses if len(losses) > 1 else []
    assert [nats for nats, _ in pairs] == pytest.approx(known, abs=6e-5)
    assert sum(line.count("nats") for line in said) == len(said)
    tokens = n + found.text.left_out + 1  # and the separator
    for nats, bits in pairs:
        assert bits == pytest.approx(nats / math.log(2) * tokens / size, rel=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_text_is_read_once_from_its_first_token_on(
    runs: dict[str, Path], name: str, text: Path
) -> None:
    found = inspect(runs[name], text, "final")
    tokens = HOSTILE.encode()
    n = found.text.tokens
    assert n + found.text.left_out == len(tokens)  # the separator is predicted last
    assert found.text.left_out < found.text.batches.seq_len
    assert "".join(found.depths.text) == tokens[:n].decode()
    assert len(found.depths.depth) == n
    assert all(0 <= depth <= found.n_blocks for depth in found.depths.depth)
    # The loss by hand: rows of one length, each read alone.
    model = trained_model(runs[name]).eval()
    ids = torch.tensor([*tokens, found.text.batches.corpus.meta.separator])
    length, total = found.text.batches.seq_len, 0.0
    with torch.no_grad():
        for start in range(0, n, length):
            row = ids[start : start + length + 1]
            out = model(row[None, :-1], row[None, 1:], routing="causal")
            total += out.loss.item() * length
    assert found.measured[0].validation.causal.nll == pytest.approx(total / n, rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_depths_of_a_beginning_do_not_depend_on_what_follows(
    runs: dict[str, Path], name: str, tmp_path: Path
) -> None:
    length, same = 30, 17
    depths = []
    for i, rest in enumerate((b"a" * (length - same), b"Z9 " * 10)):
        path = tmp_path / f"{i}.txt"
        path.write_bytes((HOSTILE.encode()[:same] + rest)[:length])
        depths.append(inspect(runs[name], path, "final").depths.depth)
    assert depths[0][:same] == depths[1][:same]


def test_every_checkpoint_is_measured_earliest_first(runs: dict[str, Path], text: Path) -> None:
    found = inspect(runs["mor"], text, "all")
    steps = [each.step for each in found.measured]
    assert len(steps) > 1
    assert steps == sorted(steps)
    assert found.measured[-1].validation.causal.nll == (
        inspect(runs["mor"], text, "final").measured[0].validation.causal.nll
    )
    losses = {each.validation.causal.nll for each in found.measured}
    assert len(losses) == len({each.step for each in found.measured})
    first = found.measured[0].checkpoint
    alone = inspect(runs["mor"], text, first).measured[0]
    assert alone.validation.causal.nll == found.measured[0].validation.causal.nll


def test_a_looped_model_is_measured_at_one_to_twice_its_loops(
    runs: dict[str, Path], text: Path
) -> None:
    for name, variant in VARIANTS.items():
        told = inspect(runs[name], text, "final").measured[0].as_json()
        if told["nll_by_depth"]:
            assert list(told["nll_by_depth"]) == [
                str(r) for r in range(1, 2 * variant.n_recursions + 1)
            ]
            return
    pytest.fail("no variant is looped")


def test_the_files_of_a_routed_model(runs: dict[str, Path], text: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ended = CliRunner().invoke(
        app, ["inspect", str(runs["mor"]), "--text", str(text), "--out", str(out), "--json"]
    )
    assert ended.exit_code == 0, ended.output
    content = json.loads((out / "mine.json").read_text())
    assert content["checkpoints"][0]["routing"]["rule"] == "causal"
    figures = {path.name for path in out.glob("*.png")}
    assert figures == {"mine_scores.png", "mine_loss_by_depth.png", "mine_token_depth.png"}
    html = (out / "mine.html").read_text()
    assert "<script" not in html
    assert html.count("<span") == len(content["depths"]["depth"]) + content["n_blocks"]


def test_a_model_that_routes_nothing_has_no_page(
    runs: dict[str, Path], text: Path, tmp_path: Path
) -> None:
    found = inspect(runs["vanilla"], text, "final")
    written = write(found, runs["vanilla"], tmp_path / "out")
    assert written.pages == ()
    assert json.loads(written.json.read_text())["checkpoints"][0]["routing"] is None


def test_without_a_folder_it_stands_beside_the_run(runs: dict[str, Path], text: Path) -> None:
    written = write(inspect(runs["mor"], text, "final"), runs["mor"], None)
    assert written.json == runs["mor"] / "inspections" / "mine.json"
    assert RunFolder(runs["mor"]).result() is not None


def test_the_page_shows_each_token_with_its_depth_and_runs_no_code(
    runs: dict[str, Path], text: Path, tmp_path: Path, browser: Any
) -> None:
    found = inspect(runs["mor"], text, "final")
    file = tmp_path / "p.html"
    file.write_text(page(found))
    opened = browser.new_page(viewport={"width": 390, "height": 800})
    wrong: list[str] = []
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.goto(file.as_uri())
    shown = opened.eval_on_selector_all("pre span", "all => all.map(s => s.title)")
    assert shown == [f"depth {depth}" for depth in found.depths.depth]
    assert wrong == []
    assert opened.evaluate("document.documentElement.scrollWidth") <= 390
    opened.close()


@pytest.mark.parametrize("name", ["vanilla", "mor"])
def test_exported_weights_with_their_tokenizer_do_as_the_run_does(
    runs: dict[str, Path], name: str, text: Path, tmp_path: Path
) -> None:
    out = tmp_path / "exported"
    ended = CliRunner().invoke(app, ["export", str(runs[name]), str(out), "hf"])
    assert ended.exit_code == 0, ended.output
    ours, theirs = (inspect(source, text, "final") for source in (runs[name], out))
    assert theirs.depths == ours.depths
    assert theirs.measured[0].validation.causal.nll == pytest.approx(
        ours.measured[0].validation.causal.nll, rel=1e-6
    )
    with pytest.raises(UserError, match="--text"):
        inspect(out, None, "final")
    with pytest.raises(ConfigError, match="checkpoint"):
        inspect(out, text, "step-00000001")


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\x00bad", None], ids=["empty", "binary", "missing"]
)
def test_a_text_that_cannot_be_read_is_one_sentence(
    runs: dict[str, Path], tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "x.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"--text .*x\.txt"):
        text_rows(runs["mor"], path)


def test_line_ends_of_a_text_are_kept(runs: dict[str, Path], tmp_path: Path) -> None:
    """A model of bytes was trained on them."""
    path, read = tmp_path / "x.txt", []
    for content in (b"one\r\ntwo\r\nthree", b"one\ntwo\nthree"):
        path.write_bytes(content)
        rows = text_rows(runs["mor"], path)
        read.append(rows.tokens + rows.left_out)
    assert read[0] == read[1] + 2


def test_mistakes_end_with_code_2_and_no_files(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for arguments in (
        [str(tmp_path / "nothing")],
        [str(runs["mor"]), "--checkpoint", "step-99", "--out", str(tmp_path / "o")],
        [str(runs["mor"]), "--text", str(tmp_path), "--out", str(tmp_path / "o")],
    ):
        monkeypatch.setattr("sys.argv", ["mor", "inspect", *arguments])
        assert main() == 2
        said = capsys.readouterr().err
        assert said.startswith("error: ")
        assert said.count("\n") == 1
    assert not (tmp_path / "o").exists()


def test_the_key_tells_every_depth_apart(runs: dict[str, Path], text: Path) -> None:
    found = inspect(runs["mor"], text, "final")
    assert router_of(trained_model(runs["mor"]).model).routes
    grounds = [
        line.split("rgb(")[1].split(")")[0]
        for line in page(found).splitlines()
        if line.startswith(".d") and "rgb(" in line
    ]
    assert len(set(grounds)) == len(grounds) == found.n_blocks
    assert math.isfinite(np.mean(found.depths.depth))

"""Points of several tokenizers are compared in bits per byte, in curves of their own, or refused;
results that are not what was written are left out and said."""

from __future__ import annotations

import json
import math

import pytest
from typer.testing import CliRunner

from analysis.cautions import Code
from analysis.commands.cli import app
from analysis.errors import AnalysisError
from analysis.points.load import load_points
from ledger.damage import file_digest
from ledger.folder import RunFolder
from tests.analysis.conftest import result_of, write_result

BYTES_A_TOKEN = {"bytes": 1.0, "bpe": 3.2}


@pytest.fixture
def two_tokenizers(tmp_path, table):
    """The same models on the same text in bytes and in tokens of 3.2 bytes."""
    for row in table.to_dict("records"):
        for tokenizer, per_token in BYTES_A_TOKEN.items():
            result = result_of(row)
            loss = row["loss"]  # nats per byte of the text, as if
            name = f"{row['run_id']}-{tokenizer}"
            write_result(
                tmp_path / "runs",
                {
                    **result,
                    "run_id": name,
                    "loss": {
                        "val_nll_causal": loss * per_token,
                        "val_bpb_causal": loss / math.log(2),
                    },
                    "data": {"name": "stdlib", "fingerprint": tokenizer},
                    "settings": {
                        "model": {"name": row["model"]},
                        "data": {"tokenizer": tokenizer, "fingerprint": tokenizer},
                    },
                },
            )
    return tmp_path / "runs"


def test_nats_per_token_of_two_tokenizers_are_refused(two_tokenizers):
    with pytest.raises(AnalysisError, match="--loss bpb"):
        load_points(two_tokenizers)


def test_bits_per_byte_are_compared_as_curves_of_their_own(two_tokenizers, table):
    points = load_points(two_tokenizers, loss="bpb")
    assert Code.SEVERAL_CORPORA in [caution.code for caution in points.warnings]
    curves = points.table.groupby("curve")["loss"]
    assert len(curves) == 2 * table["model"].nunique()
    for model in table["model"].unique():
        one, other = (
            points.table[points.table["curve"] == f"{model} (tokenizer={name})"]["loss"]
            for name in BYTES_A_TOKEN
        )
        assert sorted(one) == sorted(other)
        expected = table[table["model"] == model]["loss"] / math.log(2)
        assert sorted(one) == pytest.approx(sorted(expected))


def test_a_point_that_does_not_know_its_bytes_is_refused(two_tokenizers):
    file = next(iter(sorted(two_tokenizers.glob("*/result.json"))))
    values = json.loads(file.read_text())
    del values["loss"]["val_bpb_causal"]
    file.write_text(json.dumps(values))
    with pytest.raises(AnalysisError, match="val_bpb_causal"):
        load_points(two_tokenizers, loss="bpb")


def test_one_corpus_in_bits_per_byte_has_the_curves_it_has_in_nats(store, edit_result, table):
    for row in table.to_dict("records"):
        edit_result(
            row["run_id"], loss={"val_nll_causal": row["loss"], "val_bpb_causal": 2 * row["loss"]}
        )
    nats, bits = load_points(store).table, load_points(store, loss="bpb")
    assert bits.warnings == ()
    assert bits.table["loss"].tolist() == pytest.approx((2 * nats["loss"]).tolist())
    assert bits.table["curve"].equals(nats["curve"])


@pytest.fixture
def own_files(two_tokenizers):
    """The same as results of files of one's own have it: a fingerprint, and config.yaml."""
    for file in two_tokenizers.glob("*/result.json"):
        values = json.loads(file.read_text())
        made = {"name": "files", "paths": ["corpus/*.txt"], "cache_dir": "cache"}
        made |= values["settings"]["data"]
        values["settings"]["data"] = {"fingerprint": made["fingerprint"]}
        file.write_text(json.dumps(values))
        (file.parent / "config.yaml").write_text(json.dumps({"data": made}))
    return two_tokenizers


def test_tokenizers_of_own_files_are_called_by_their_setting(own_files):
    curves = set(load_points(own_files, loss="bpb").table["curve"])
    assert "vanilla (tokenizer=bytes)" in curves
    assert len(curves) == 4


def test_corpora_of_the_same_settings_keep_their_fingerprints(own_files):
    for file in own_files.glob("*/config.yaml"):
        content = json.loads(file.read_text())
        content["data"]["tokenizer"] = "train"
        file.write_text(json.dumps(content))
    curves = set(load_points(own_files, loss="bpb").table["curve"])
    assert "vanilla (fingerprint=bytes)" in curves


def test_the_report_of_two_tokenizers_is_in_bits_per_byte(own_files, tmp_path):
    page = tmp_path / "page.html"
    asked = ["report", str(own_files), "--loss", "bpb", "--out", str(page), "--no-reference"]
    ended = CliRunner().invoke(app, [*asked, "--bootstrap", "0"])
    assert ended.exit_code == 0, ended.output
    said = page.read_text()
    assert "Best losses (bits per byte)" in said
    assert "nats per token" not in said
    assert "Bits per byte</th>" not in said  # it is the loss already


@pytest.mark.parametrize("command", ["isoflop", "compare"])
def test_commands_print_the_unit(two_tokenizers, command):
    arguments = [command, str(two_tokenizers), "--loss", "bpb"]
    if command == "compare":
        arguments += ["--baseline", "vanilla (tokenizer=bytes)"]
    else:
        arguments += ["--out", str(two_tokenizers.parent / "figures")]
    ended = CliRunner().invoke(app, arguments)
    assert ended.exit_code == 0, ended.output
    assert "bits per byte" in ended.output
    assert "nats" not in ended.output


def test_a_result_that_is_not_what_was_written_is_left_out_and_said(store, edit_result):
    name = "mor-3k-1e+10-0"
    folder = RunFolder(store / name)
    folder.digest_file.write_text(file_digest(folder.result_file))
    assert load_points(store).warnings == ()
    edit_result(name, tokens=1)
    points = load_points(store)
    assert [caution.code for caution in points.warnings] == [Code.DAMAGED]
    assert name not in set(points.table["run_id"])

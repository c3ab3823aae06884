"""What an exported model is computed in: what its run was trained in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import mor.hf  # noqa: F401
from ledger.folder import RunFolder
from mor.export import export_for_transformers
from mor.inference.command import open_trained
from mor.model.exchange import ExchangeError
from mor.model.llama import unread_settings
from mor.model.transformer import Transformer
from mor.train.initial import trained_model
from mor.train.run import Hooks, train_run


def computed_in(folder: Path) -> str:
    """Of `mor generate` on a GPU, as far as opening a folder sees one."""
    loaded = trained_model(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mor.inference.command.trained_model", lambda _: loaded)
        patch.setattr("mor.inference.command.torch.cuda.is_available", lambda: True)
        patch.setattr(Transformer, "to", lambda model, *_: model)
        return "bf16" if open_trained(folder).bf16 else "fp32"


@pytest.mark.parametrize("architecture", ["vanilla", "mor"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_export_is_computed_in_what_its_run_was_trained_in(
    architecture: str, precision: str, toy_run: Any, tmp_path: Path
) -> None:
    run, out, again = (tmp_path / name for name in ("run", "out", "again"))
    train_run(toy_run(architecture, steps=6, precision=precision), RunFolder(run), None, Hooks())
    export_for_transformers(run, trained_model(run), out)
    export_for_transformers(out, trained_model(out), again)
    assert [computed_in(folder) for folder in (run, out, again)] == [precision] * 3
    model = transformers.AutoModelForCausalLM.from_pretrained(out)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    if architecture == "vanilla":
        assert not unread_settings(out)
    file = out / "config.json"
    values = json.loads(file.read_text())
    values.pop("trained_precision")
    file.write_text(json.dumps(values))  # of an older version, or of others
    assert computed_in(out) == "bf16"
    for wrong in ("half", [1], True):
        file.write_text(json.dumps({**values, "trained_precision": wrong}))
        with pytest.raises(ExchangeError, match="trained_precision="):
            open_trained(out)

"""Runs that start from a full model, and trained models as published weights."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from typer.testing import CliRunner

from ledger.errors import DamagedFile, UserError
from ledger.folder import RunFolder
from ledger.result import Result
from mor.__main__ import app
from mor.config import Config, ConfigError
from mor.data.batches import Batches
from mor.data.prepare import prepare
from mor.identity import identity, run_id, trunk_id
from mor.model.checks import INIT_METHODS
from mor.model.initialise import mean_of, sources
from mor.starter import write_starter
from mor.train.initial import initial_model, trained_model
from mor.train.origin import with_origin
from mor.train.run import Hooks, train_run


def train(config: Config, folder: Path) -> Result:
    train_run(config, RunFolder(folder), None, Hooks())
    result = RunFolder(folder).result()
    assert result is not None
    return result


def started(config: Config, folder: Path | str, method: str | None = None) -> Config:
    chosen = replace(config.train, init_from=str(folder), init_method=method)
    return with_origin(replace(config, train=chosen))


@pytest.fixture
def full(toy_run: Any, tmp_path: Path) -> Path:
    """A finished vanilla run."""
    train(toy_run("vanilla", steps=8), tmp_path / "full")
    return tmp_path / "full"


def run(*arguments: object) -> str:
    ended = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if ended.exception:
        raise ended.exception
    return ended.output


def test_ids_of_runs_that_start_from_nothing_stay(toy_run: Any) -> None:
    config = toy_run("mor")
    assert not [name for name in identity(config)["train"] if name.startswith("init")]
    method = replace(config, train=replace(config.train, init_method="lower"))
    assert run_id(method) == run_id(config)


def test_the_weights_are_identity_and_their_place_is_not(
    toy_run: Any, full: Path, tmp_path: Path
) -> None:
    config = toy_run("mor")
    here = started(config, full)
    moved = full.rename(tmp_path / "elsewhere")
    assert run_id(started(config, moved)) == run_id(here) != run_id(config)
    assert trunk_id(here) != trunk_id(config)
    assert run_id(started(config, moved, "lower")) != run_id(here)
    assert run_id(started(config, moved, "stepwise")) == run_id(here)
    train(toy_run("vanilla", steps=9), tmp_path / "other")
    assert run_id(started(config, tmp_path / "other")) != run_id(here)


@pytest.mark.parametrize("method", INIT_METHODS)
def test_a_run_starts_with_the_weights_of_its_layers(toy_run: Any, full: Path, method: str) -> None:
    config = started(toy_run("recursive"), full, method)
    model, given = initial_model(config, None), trained_model(full).state_dict()
    for layer, taken in sources(method, model.layout, config.size.n_layers).items():
        for name, weight in model.layers[layer].named_parameters():
            assert torch.equal(weight, mean_of(given, [f"layers.{i}.{name}" for i in taken]))
    assert torch.equal(model.embed.weight, given["embed.weight"])


def test_a_vanilla_run_goes_on_where_the_full_one_ended(toy_run: Any, full: Path) -> None:
    """Its first loss is that of the trained model, from the run or from its export."""
    config = started(toy_run("vanilla", steps=3, warmup_steps=0), full)
    train(config, full.with_name("next"))
    [first, *_] = (full.with_name("next") / "metrics.jsonl").read_text().splitlines()
    corpus = prepare(config.data)
    tokens, targets = Batches(corpus, 32, 4, config.seed).batch(0)
    with torch.no_grad():
        loss = trained_model(full)(torch.from_numpy(tokens), torch.from_numpy(targets)).loss
    assert json.loads(first)["loss"] == pytest.approx(loss.item(), rel=1e-6)


def test_export_of_a_vanilla_run_is_loaded_by_transformers(full: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    assert "LlamaForCausalLM" in run("export", full, tmp_path / "out")
    theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    tokens = torch.arange(48).view(2, 24) * 5 % 256
    with torch.no_grad():
        torch.testing.assert_close(
            theirs(tokens).logits, trained_model(full)(tokens).logits, atol=1e-4, rtol=1e-4
        )


@pytest.mark.parametrize("architecture", ["recursive", "mor", "mor_token"])
def test_export_of_other_runs_is_read_again(
    architecture: str, toy_run: Any, tmp_path: Path
) -> None:
    train(toy_run(architecture, steps=4), tmp_path / "run")
    run("export", tmp_path / "run", tmp_path / "out")
    model, again = trained_model(tmp_path / "run"), trained_model(tmp_path / "out")
    tokens = torch.arange(48).view(2, 24) * 5 % 256
    with torch.no_grad():
        logits = model(tokens, routing="causal").logits
        assert torch.equal(again(tokens, routing="causal").logits, logits)


def llama(folder: Path, **changes: Any) -> Any:
    transformers = pytest.importorskip("transformers")
    settings = {
        "vocab_size": 256, "hidden_size": 16, "intermediate_size": 40, "num_hidden_layers": 5,
        "num_attention_heads": 2, "num_key_value_heads": 1, "tie_word_embeddings": True,
        "rms_norm_eps": 1e-5, "initializer_range": 0.2,
    }  # fmt: skip
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**(settings | changes)))
    model.save_pretrained(folder)
    return model.eval()


def test_a_llama_of_transformers_starts_a_run(toy_run: Any, tmp_path: Path) -> None:
    theirs = llama(tmp_path / "llama")
    said = run("import-llama", tmp_path / "llama", tmp_path / "out")
    assert "size.d_model=16" in said
    assert "data=stdlib data.vocab_size=256" in said  # bytes, as that corpus has them
    config = started(toy_run("vanilla", steps=2), tmp_path / "out")
    tokens = torch.arange(48).view(2, 24) * 5 % 256
    with torch.no_grad():
        torch.testing.assert_close(
            initial_model(config, None)(tokens).logits, theirs(tokens).logits, atol=1e-4, rtol=1e-4
        )
    assert train(started(toy_run("mor", steps=4), tmp_path / "out"), tmp_path / "run").loss


def test_what_cannot_be_started_from_is_named(toy_run: Any, full: Path, tmp_path: Path) -> None:
    config = toy_run("mor")
    with pytest.raises(UserError, match=r"train.init_from=.*neither a finished run nor"):
        started(config, tmp_path / "nowhere")
    wider = replace(config, size=dataclasses.replace(config.size, d_ff=48))
    with pytest.raises(ConfigError, match=r"same width and vocabulary; type size.d_ff=40"):
        started(wider, full)
    llama(tmp_path / "eps", rms_norm_eps=1e-6)
    with pytest.raises(ConfigError, match=r"type model.norm_eps=1e-06"):
        started(config, tmp_path / "eps")
    train(toy_run("recursive", steps=4), tmp_path / "tied")
    with pytest.raises(ConfigError, match=r"init_from=/.*/tied: .*with keys and values at every"):
        started(config, tmp_path / "tied")
    planned = started(config, full)
    other = replace(planned, train=replace(planned.train, init_fingerprint="0" * 16))
    with pytest.raises(ConfigError, match="not those of the plan"):
        initial_model(other, None)


def test_the_size_to_type_is_that_of_the_full_model_and_so_is_its_name(
    toy_run: Any, full: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The value as typed; `size=<name>` where a file of settings holds this very size."""
    monkeypatch.chdir(tmp_path)
    config, size = toy_run("mor"), toy_run("vanilla").size
    narrow = replace(config, size=replace(size, name="narrow", n_layers=4, d_ff=48))

    def said() -> tuple[Any, str]:
        with pytest.raises(ConfigError) as refused:
            started(narrow, full.name)
        return refused.value.value, refused.value.instead

    whole = f"type size.name={size.name} size.n_layers={size.n_layers} size.d_ff={size.d_ff}"
    assert said() == ("full", whole)
    write_starter(tmp_path)
    (tmp_path / "conf" / "size" / f"{size.name}.yaml").write_text(
        yaml.safe_dump(dataclasses.asdict(size))
    )
    assert said() == ("full", f"type size={size.name}")
    (tmp_path / "conf" / "size" / f"{size.name}.yaml").write_text(
        yaml.safe_dump({**dataclasses.asdict(size), "d_ff": 48})
    )
    assert said() == ("full", whole)


def test_a_folder_that_holds_something_is_never_written_into(full: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        run("export", full, tmp_path / "out")
    with pytest.raises(UserError, match="neither a finished run"):
        run("export", tmp_path / "nowhere", tmp_path / "new")
    config = (full / "config.yaml").read_text()
    for broken in ("train: {lr: [", "- a list", ""):
        (full / "config.yaml").write_text(broken)
        with pytest.raises(DamagedFile, match=r"config\.yaml"):
            run("export", full, tmp_path / "new")
    (full / "config.yaml").write_text(config)
    [weights] = (full / "checkpoints" / "final").glob("*.distcp")
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(UserError, match="its weights are damaged"):
        run("export", full, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert not list(tmp_path.glob(".*.tmp"))

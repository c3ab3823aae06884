"""Llama folders of the field: whatever is in them is read, or refused in one sentence."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from mor.__main__ import app
from mor.model.exchange import ExchangeError, load, save
from mor.model.llama import EMBEDDING, HEAD, llama_shapes, read_shape
from mor.model.published import INDEX, WEIGHTS, stored
from tests.mor.model.variants import ALL, build, draw

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:1234\nsize 724\n"
PROPERTY = settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama") / "tiny"
    save(build(ALL["vanilla"]), folder)
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A Llama to spoil."""
    return Path(shutil.copytree(whole, tmp_path / "tiny"))


def fresh(whole: Path, tmp_path: Path) -> Path:
    """The same for each example of a property test."""
    shutil.rmtree(tmp_path / "tiny", ignore_errors=True)
    return Path(shutil.copytree(whole, tmp_path / "tiny"))


def config(folder: Path, **changes: object) -> None:
    given = json.loads((folder / "config.json").read_text()) | changes
    kept = {name: value for name, value in given.items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(kept))


def tensors(folder: Path, **changes: torch.Tensor | None) -> None:
    """Add or replace tensors; None takes one away."""
    found = {**load_file(folder / WEIGHTS), **changes}
    save_file({name: t for name, t in found.items() if t is not None}, folder / WEIGHTS)


def refused(folder: Path, out: Path, *named: str) -> str:
    """Refused by the command: exit code 2, one sentence that names it all, nothing written."""
    result = CliRunner().invoke(app, ["import-llama", str(folder), str(out)])
    assert isinstance(result.exception, ExchangeError), result.exception
    said = str(result.exception)
    assert "\n" not in said
    assert all(name in said for name in named), said
    assert not out.exists()
    return said


@pytest.mark.parametrize("name", ["quantization_config", "compression_config"])
def test_quantized_models_are_refused(name, folder, tmp_path):
    config(folder, **{name: {"quant_method": "bitsandbytes", "load_in_8bit": True}})
    refused(folder, tmp_path / "out", name, "bitsandbytes")


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn, torch.bool])
def test_quantized_tensors_are_refused_without_any_word_in_the_configuration(
    dtype, folder, tmp_path
):
    name = "model.layers.0.mlp.up_proj.weight"
    tensors(folder, **{name: load_file(folder / WEIGHTS)[name].to(dtype)})
    refused(folder, tmp_path / "out", name)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floating_point_of_any_width_is_read(dtype, folder):
    given = {name: t.to(dtype) for name, t in load_file(folder / WEIGHTS).items()}
    save_file(given, folder / WEIGHTS)
    model = load(folder)
    assert torch.equal(model.embed.weight, given[EMBEDDING].float())


def test_a_head_is_taken_as_tied_only_where_it_is(folder, tmp_path):
    embedding = load_file(folder / WEIGHTS)[EMBEDDING]
    before = load(folder).state_dict()
    tensors(folder, **{HEAD: embedding.clone()})
    assert all(torch.equal(a, b) for a, b in zip(load(folder).state_dict().values(),
                                                 before.values(), strict=True))  # fmt: skip
    embedding = embedding.clone()
    embedding[3, 5] += 1e-3
    tensors(folder, **{HEAD: embedding})
    refused(folder, tmp_path / "out", HEAD, "tie_word_embeddings")


def test_stored_frequencies_must_be_those_of_the_configuration(folder, tmp_path):
    size = read_shape(folder).size
    name = "model.layers.1.self_attn.rotary_emb.inv_freq"
    for theta, right in ((10000.0, True), (500000.0, False)):
        pairs = torch.arange(0, size.d_head, 2) / size.d_head
        tensors(folder, **{name: theta**-pairs})
        if right:
            load(folder)
        else:
            refused(folder, tmp_path / "out", name, "rope_theta")


def test_numbers_that_are_not_finite_are_refused(folder, tmp_path):
    found = load_file(folder / WEIGHTS)["model.norm.weight"].clone()
    found[2] = torch.nan
    tensors(folder, **{"model.norm.weight": found})
    refused(folder, tmp_path / "out", "model.norm.weight")


NAMES = st.from_regex(r"[a-z_]{1,12}(\.[a-z_0-9]{1,12}){0,3}(\.weight|\.bias)?", fullmatch=True)


@PROPERTY
@given(name=NAMES, shape=st.lists(st.integers(1, 4), max_size=3))
def test_a_tensor_that_nothing_reads_is_never_ignored(name, shape, whole, tmp_path):
    here = fresh(whole, tmp_path)
    tensors(here, **{name: torch.zeros(shape)})
    refused(here, tmp_path / "out", name)


@PROPERTY
@given(data=st.data())
def test_every_tensor_is_needed_in_its_shape(data, whole, tmp_path):
    here = fresh(whole, tmp_path)
    wanted = llama_shapes(read_shape(here))
    assert wanted.keys() == stored(here).keys()
    name = data.draw(st.sampled_from(sorted(wanted)))
    other = data.draw(
        st.none() | st.lists(st.integers(1, 40), min_size=1, max_size=3).map(tuple)
    )  # fmt: skip
    if other == wanted[name]:
        return
    tensors(here, **{name: None if other is None else torch.ones(other)})
    refused(here, tmp_path / "out", name)


@PROPERTY
@given(data=st.data())
def test_a_torn_file_is_refused_wherever_it_ends(data, whole, tmp_path):
    here = fresh(whole, tmp_path)
    size = (here / WEIGHTS).stat().st_size
    os.truncate(here / WEIGHTS, data.draw(st.integers(0, size - 1)))
    refused(here, tmp_path / "out", WEIGHTS)


@PROPERTY
@given(junk=st.binary(min_size=1, max_size=40), at=st.integers(0, 400))
def test_a_damaged_header_is_refused_or_says_the_same(junk, at, whole, tmp_path):
    here = fresh(whole, tmp_path)
    data = bytearray((here / WEIGHTS).read_bytes())
    data[at : at + len(junk)] = junk
    before = stored(whole)
    (here / WEIGHTS).write_bytes(data)
    try:
        load(here)
    except ExchangeError:
        return
    again = stored(here)
    assert {n: (t.dtype, t.shape) for n, t in again.items()} == {
        n: (t.dtype, t.shape) for n, t in before.items()
    }


@PROPERTY
@given(data=st.data())
def test_sharded_folders_load_and_files_and_index_must_agree(data, whole, tmp_path):
    here = fresh(whole, tmp_path)
    given_tensors = load_file(here / WEIGHTS)
    (here / WEIGHTS).unlink()
    places = {
        name: f"model-{data.draw(st.integers(1, 3))}-of-3.safetensors" for name in given_tensors
    }
    for file in set(places.values()):
        save_file({n: t for n, t in given_tensors.items() if places[n] == file}, here / file)
    (here / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))
    tokens, _ = draw(2, 12)
    assert torch.equal(load(here)(tokens).logits, load(whole)(tokens).logits)
    name = data.draw(st.sampled_from(sorted(places)))
    fault = data.draw(st.sampled_from(["elsewhere", "nowhere", "unlisted", "file", "escape"]))
    if fault == "elsewhere":
        places[name] = next(
            f for f in [*set(places.values()), "x.safetensors"] if f != places[name]
        )
    elif fault == "nowhere":
        places["model.layers.9.mlp.up_proj.weight"] = places[name]
    elif fault == "unlisted":
        del places[name]
    elif fault == "file":
        (here / places[name]).unlink()
    else:
        places[name] = f"../{here.name}/{places[name]}"
    (here / INDEX).write_text(json.dumps({"weight_map": places}))
    refused(here, tmp_path / "out", str(here))


def test_files_beside_the_model_are_not_ignored(folder, tmp_path):
    save_file({"base.lora_A.weight": torch.ones(2, 2)}, folder / "adapter_model.safetensors")
    refused(folder, tmp_path / "out", "adapter_model.safetensors")


def test_pickled_weights_are_named_not_read(folder, tmp_path):
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")
    refused(folder, tmp_path / "out", WEIGHTS, "pytorch_model.bin")


@pytest.mark.parametrize("file", ["config.json", WEIGHTS, INDEX, "tokenizer.json"])
def test_a_pointer_of_git_lfs_is_told(file, folder, tmp_path):
    (folder / file).write_text(POINTER)
    refused(folder, tmp_path / "out", file, "git lfs pull")


@pytest.mark.parametrize("file", ["config.json", INDEX, "tokenizer.json"])
@pytest.mark.parametrize("text", ["{", "", "[]", "\x00\xff", '{"weight_map": [1]}x'])
def test_broken_json_is_told(file, text, folder, tmp_path):
    (folder / file).write_text(text)
    refused(folder, tmp_path / "out", file)


NEEDED = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
)  # fmt: skip


@pytest.mark.parametrize("name", NEEDED)
@pytest.mark.parametrize("value", [..., None, "64", 0, -1, 2.5, True, [1]])
def test_a_key_that_is_missing_or_of_another_kind_is_named(name, value, folder, tmp_path):
    config(folder, **{name: value})
    refused(folder, tmp_path / "out", name)


@pytest.mark.parametrize(
    "change",
    [
        {"vocab_size": 41}, {"hidden_size": 72}, {"intermediate_size": 47},
        {"num_hidden_layers": 99}, {"num_key_value_heads": 9},
        {"rms_norm_eps": "x"}, {"rope_theta": 0}, {"rope_scaling": [1]},
        {"sliding_window": 128}, {"partial_rotary_factor": 0.5},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_a_configuration_that_is_not_of_these_weights_is_refused(change, folder, tmp_path):
    config(folder, **change)
    refused(folder, tmp_path / "out")


def test_our_own_form_is_checked_alike(tmp_path):
    here = tmp_path / "own"
    save(build(ALL["expert-aux-router"]), here)
    found = load_file(here / WEIGHTS)
    name = sorted(found)[0]
    for change in ({"extra": torch.ones(2)}, {name: None}, {name: torch.ones(3)}):
        tensors(here, **change)
        with pytest.raises(ExchangeError, match=next(iter(change))):
            load(here)
        save_file(found, here / WEIGHTS)
    given = json.loads((here / "mor.json").read_text())
    for key in given:
        (here / "mor.json").write_text(json.dumps({k: v for k, v in given.items() if k != key}))
        with pytest.raises(ExchangeError, match=key):
            read_shape(here)


def test_the_same_is_found_when_a_study_is_planned(folder, tmp_path):
    """Planning reads headers, so that nothing is submitted for weights that cannot be read."""
    from mor.train.origin import read_origin

    tensors(folder, **{"model.layers.0.self_attn.q_proj.bias": torch.ones(4)})
    with pytest.raises(ExchangeError, match=r"q_proj\.bias"):
        read_origin(folder)


def test_settings_that_are_not_read_are_announced(folder, tmp_path):
    config(folder, logits_scale=0.5, use_cache=True)
    result = CliRunner().invoke(app, ["import-llama", str(folder), str(tmp_path / "out")])
    assert "logits_scale" in result.output
    assert "use_cache" not in result.output
    config(folder, rope_interleaved=True)
    refused(folder, tmp_path / "other", "rope_interleaved")

"""Exported models in transformers: our logits, our continuations, our tokens."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

import mor.hf
from ledger.folder import RunFolder
from mor.__main__ import main
from mor.data.fast_tokenizer import write_fast_tokenizer
from mor.data.prepare import prepare
from mor.data.tokenizer import ByteTokenizer
from mor.inference.decode import generate
from mor.model.exchange import ExchangeError, is_llama, load, save, save_for_transformers
from mor.train.run import Hooks, train_run
from tests.mor.model.test_looped import looped
from tests.mor.model.test_mod import MODELS
from tests.mor.model.variants import ALL as MOST
from tests.mor.model.variants import VOCAB, build, draw

LOOPED = {
    f"looped-{kind}": looped(kind, loops)
    for kind, loops in (("add", "fixed"), ("concat", "poisson"), ("gate", "fixed"))
}
ALL = MOST | LOOPED | {f"mod-{name}": model for name, model in MODELS.items()}


def exported(name: str, folder: Path) -> Any:
    model = build(ALL[name], seed=1)
    save_for_transformers(model, folder, 32)
    return model


@pytest.mark.parametrize("name", ALL)
def test_every_architecture_has_our_logits_with_and_without_a_cache(
    name: str, tmp_path: Path
) -> None:
    model = exported(name, tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path)
    tokens, _ = draw(2, 12)
    with torch.no_grad():
        wanted = model(tokens, routing="causal").logits
        found = theirs(tokens)
        torch.testing.assert_close(found.logits, wanted, atol=2e-5, rtol=1e-4)
        if is_llama(model.model):
            assert type(theirs) is transformers.LlamaForCausalLM
            return
        assert type(theirs) is mor.hf.MorForCausalLM
        first = theirs(tokens[:, :7], use_cache=True)
        cache = first.past_key_values
        rest = theirs(tokens[:, 7:], past_key_values=cache)
    cached = torch.cat((first.logits, rest.logits), 1)
    torch.testing.assert_close(cached, wanted, atol=2e-5, rtol=1e-4)
    assert cache.get_seq_length() == 12


@pytest.mark.parametrize(
    "name", ["vanilla", "expert", "expert-hybrid", "token-shared", "looped-concat", "mod-half"]
)
def test_generate_continues_as_our_decoder_does(name: str, tmp_path: Path) -> None:
    model = exported(name, tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path)
    prompt = torch.tensor([[3, 1, 4, 1], [5, 9, 2, 6]])
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    wanted = generate(model, prompt, 6)
    assert torch.equal(theirs.generate(prompt, **options), wanted)
    assert torch.equal(theirs.generate(prompt, use_cache=False, **options), wanted)
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])  # prompts of two lengths
    padded = torch.tensor([[0, 0, 3, 1, 4], [5, 9, 2, 6, 5]])
    for cached in (True, False):
        found = theirs.generate(padded, attention_mask=mask, use_cache=cached, **options)
        for row, n in zip(range(2), (2, 0), strict=True):
            alone = generate(model, padded[row : row + 1, n:], 6)
            assert torch.equal(found[row : row + 1, n:], alone)


def test_sampling_stops_and_prompts_continue_from_a_kept_cache(tmp_path: Path) -> None:
    model = exported("expert-shared", tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path)
    prompt = torch.tensor([[3, 1, 4]])
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(theirs.generate(prompt, max_new_tokens=12, do_sample=True).tolist())
    assert drawn[0] == drawn[1] != drawn[2]
    free = generate(model, prompt, 5)
    stop = int(free[0, 4])
    found = theirs.generate(prompt, max_new_tokens=5, do_sample=False, eos_token_id=stop)
    first = free[0, 3:].tolist().index(stop)
    assert found.tolist() == free[:, : 3 + first + 1].tolist()


def test_a_loss_is_that_of_the_next_tokens(tmp_path: Path) -> None:
    model = exported("token", tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path)
    rows = torch.randint(VOCAB, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = model(rows[:, :-1], rows[:, 1:], routing="causal").loss
        torch.testing.assert_close(theirs(rows, labels=rows).loss, wanted)


@pytest.mark.parametrize("name", ["token", "vanilla"])  # vanilla: transformers' own Llama
def test_a_batch_in_parts_has_the_loss_and_gradients_of_the_whole(
    name: str, tmp_path: Path
) -> None:
    exported(name, tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path)
    rows, _ = draw(4, 9)
    scored = rows[:, 1:].numel()
    for n, factor in ((scored, 1), (torch.tensor(scored * 4), 0.25)):
        found = theirs(rows, labels=rows, num_items_in_batch=n).loss
        torch.testing.assert_close(found, factor * theirs(rows, labels=rows).loss)
    gradients = []
    for parts in (1, 4):
        theirs.zero_grad()
        for part in rows.chunk(parts):
            theirs(part, labels=part, num_items_in_batch=scored).loss.backward()
        gradients.append([p.grad.clone() for p in theirs.parameters() if p.grad is not None])
    assert gradients[0]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("cached", [False, True])
def test_nothing_is_scored_from_padding(cached: bool, tmp_path: Path) -> None:
    """Whether the labels of pads are left out or not."""
    exported("expert", tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path)
    rows, _ = draw(3, 9)
    mask = torch.tensor([[0] * n + [1] * (9 - n) for n in (4, 0, 7)])
    with torch.no_grad():
        alone = [
            theirs(row[None, n:], labels=row[None, n:], num_items_in_batch=1).loss
            for row, n in zip(rows, (4, 0, 7), strict=True)
        ]
        wanted = sum(alone) / (4 + 8 + 1)
        for labels in (rows, rows.masked_fill(mask == 0, -100)):
            found = theirs(rows, attention_mask=mask, labels=labels, use_cache=cached).loss
            torch.testing.assert_close(found, wanted, atol=2e-5, rtol=1e-4)


def test_what_has_no_such_form_is_refused(tmp_path: Path) -> None:
    exported("expert", tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path)
    prompt = torch.tensor([[3, 1, 4]])
    with pytest.raises(ValueError, match="num_beams"):
        theirs.generate(prompt, max_new_tokens=3, num_beams=2)
    with pytest.raises(ValueError, match="attention_mask"):
        theirs(prompt, attention_mask=torch.tensor([[1, 1, 0]]))
    nothing = {"input_ids": prompt.repeat(2, 1), "attention_mask": torch.tensor([[0] * 3, [1] * 3])}
    for use in (
        theirs,
        partial(theirs.generate, max_new_tokens=3),
        partial(theirs, use_cache=True),
    ):
        with pytest.raises(ValueError, match=r"^attention_mask: row 0 ") as caught:
            use(**nothing)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="inputs_embeds"):
        theirs(None, inputs_embeds=torch.zeros(1, 3, 32))


@pytest.mark.parametrize("name", ["vanilla", "expert-documents", "token-loss-free"])
def test_shards_load_in_transformers_and_here(name: str, tmp_path: Path) -> None:
    model = exported(name, tmp_path / "whole")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "whole")
    theirs.save_pretrained(tmp_path / "shards", max_shard_size="30KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    tokens, _ = draw(2, 12)
    with torch.no_grad():
        wanted = model(tokens, routing="causal").logits
        again = AutoModelForCausalLM.from_pretrained(tmp_path / "shards")
        torch.testing.assert_close(again(tokens).logits, wanted, atol=2e-5, rtol=1e-4)
        for folder in ("whole", "shards"):
            ours = load(tmp_path / folder)(tokens, routing="causal").logits
            torch.testing.assert_close(ours, wanted, atol=2e-5, rtol=1e-4)


def test_the_older_form_is_read_and_exported(tmp_path: Path) -> None:
    model = build(ALL["expert-hybrid"], seed=1)
    save(model, tmp_path / "old")
    assert _main("export", tmp_path / "old", tmp_path / "new", "hf") == 0
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "new")
    tokens, _ = draw(2, 12)
    with torch.no_grad():
        torch.testing.assert_close(theirs(tokens).logits, model(tokens, routing="causal").logits)


def _main(*arguments: object) -> int:
    before, sys.argv = sys.argv, ["mor", *map(str, arguments)]
    try:
        return main()
    except SystemExit as ended:  # typer's own, after success
        return int(ended.code or 0)
    finally:
        sys.argv = before


@pytest.mark.parametrize("architecture", ["vanilla", "mor"])
def test_a_run_of_bytes_generates_text_in_a_fresh_process(
    architecture: str, toy_run: Any, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "run")
    train_run(toy_run(architecture, steps=6), run, None, Hooks())
    assert _main("export", run.path, tmp_path / "out", "hf") == 0
    code = (
        "import sys, transformers\n"
        + ("" if architecture == "vanilla" else "import mor.hf\n")
        + "folder = sys.argv[1]\n"
        "model = transformers.AutoModelForCausalLM.from_pretrained(folder)\n"
        "tokenizer = transformers.AutoTokenizer.from_pretrained(folder)\n"
        "given = tokenizer(['scaling', 'a law é'], return_tensors='pt', padding=True)\n"
        "new = model.generate(**given, max_new_tokens=4, do_sample=False)\n"
        "print(new.tolist())\n"
    )
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(tmp_path / "out")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    from mor.train.initial import trained_model

    model = trained_model(run.path)
    rows = json.loads(ended.stdout)
    for row, text in zip(rows, ("scaling", "a law é"), strict=True):
        prompt = torch.tensor([list(text.encode())])
        wanted = generate(model, prompt, 4)[0].tolist()
        if 255 not in wanted:
            assert row[-len(wanted) :] == wanted
    assert json.loads((tmp_path / "out" / "config.json").read_text())["eos_token_id"] == 255


@pytest.fixture(scope="module")
def byte_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("bytes")
    write_fast_tokenizer(ByteTokenizer(), folder, 64)
    return AutoTokenizer.from_pretrained(folder)


@given(text=st.text(max_size=40))
def test_byte_tokens_are_ours(byte_tokenizer: Any, text: str) -> None:
    try:
        wanted = list(text.encode())
    except UnicodeEncodeError:
        return
    assert byte_tokenizer(text)["input_ids"] == wanted
    assert byte_tokenizer.decode(wanted) == text


def test_text_that_spells_the_separator_is_text(byte_tokenizer: Any) -> None:
    text = "a<|endoftext|>b"
    assert byte_tokenizer(text)["input_ids"] == list(text.encode())
    assert byte_tokenizer.eos_token_id == 255
    assert byte_tokenizer.decode([97, 255], skip_special_tokens=True) == "a"


def test_subword_tokens_are_ours(toy_run: Any, tmp_path: Path) -> None:
    data = dataclasses.replace(
        toy_run("vanilla").data, tokenizer="train", vocab_size=300, fingerprint=None
    )
    tokenizer = prepare(data).tokenizer()
    (tmp_path / "out").mkdir()
    write_fast_tokenizer(tokenizer, tmp_path / "out", None)
    theirs = AutoTokenizer.from_pretrained(tmp_path / "out")
    for text in ("document 3\n7 scaling law 12", " é<|endoftext|>", "a\t b  c"):
        assert theirs(text)["input_ids"] == tokenizer.encode([text])[0][:-1].tolist()
        assert theirs.decode(theirs(text)["input_ids"]) == text


@pytest.mark.parametrize("form", ["own", "hf"])
@pytest.mark.parametrize("damage", ["cut", "json", "shape", "missing", "index", "field"])
def test_damaged_folders_are_one_sentence(form: str, damage: str, tmp_path: Path) -> None:
    model = build(ALL["expert"])
    config = tmp_path / ("mor.json" if form == "own" else "config.json")
    if form == "own":
        save(model, tmp_path)
    else:
        save_for_transformers(model, tmp_path, None)
    given = json.loads(config.read_text())
    weights = tmp_path / "model.safetensors"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "json":
        config.write_text("{")
    elif damage == "shape":
        given["size"]["d_ff"] += 8
        config.write_text(json.dumps(given))
    elif damage == "missing":
        given["model"]["router"]["network"] = "mlp"
        config.write_text(json.dumps(given))
    elif damage == "index":
        (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": []}')
    else:
        given["model"]["invented"] = 1
        config.write_text(json.dumps(given))
    with pytest.raises(ExchangeError) as refused:
        load(tmp_path)
    assert len(str(refused.value).splitlines()) == 1
    before = sorted(tmp_path.iterdir())
    assert _main("export", tmp_path, tmp_path / "out", "hf") == 2
    assert sorted(tmp_path.iterdir()) == before


def test_an_index_reads_no_file_outside_its_folder(tmp_path: Path) -> None:
    save(build(ALL["expert"]), tmp_path / "a")
    other = tmp_path / "a" / "model.safetensors"
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mor.json").write_text((tmp_path / "a" / "mor.json").read_text())
    index = {"weight_map": {"embed.weight": str(other)}}
    (tmp_path / "b" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ExchangeError, match="missing"):
        load(tmp_path / "b")


def test_an_unknown_form_is_refused(tmp_path: Path, capsys: Any) -> None:
    assert _main("export", tmp_path, tmp_path / "out", "onnx") == 2
    assert "form=onnx" in capsys.readouterr().err

"""`python -m mor`: corpora, trained models out as published weights, Llama checkpoints in."""

from __future__ import annotations

import shutil
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mor.command_line import setting
from mor.config import UserError
from mor.model.llama import LLAMA, read_shape, unread_settings
from mor.model.published import read_object

if TYPE_CHECKING:
    from mor.model.transformer import Transformer

app = typer.Typer(
    help="Corpora prepared, trained models out as published weights, Llama checkpoints in.\n\n"
    "Examples:\n\n"
    "    python -m mor prepare data=fineweb_edu data.tokens=16e9 runtime.workers=32\n\n"
    "    python -m mor export runs/vanilla-360m-5e18-ea417346 out\n\n"
    "    python -m mor import-llama SmolLM-360M smol      then train.init_from=smol",
    no_args_is_help=True,
    add_completion=False,
)
Out = Annotated[Path, typer.Argument(help="New folder for the weights.")]
TOKENIZER = "tokenizer.json"


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run: runs/<run id>.")],
    out: Out,
) -> None:
    """Write a run's weights as safetensors and JSON: as a Llama where it is one, which
    transformers loads, else under our own names."""
    from mor.train.initial import trained_model

    _refuse_used(out)
    _write(trained_model(run.absolute()), out)
    form = "transformers loads it as LlamaForCausalLM" if (out / LLAMA).exists() else "our own form"
    print(f"{out}: {form}; another run starts from it with train.init_from={out}")


@app.command()
def import_llama(
    checkpoint: Annotated[
        Path, typer.Argument(help="Folder of a Llama: config.json, safetensors.")
    ],
    out: Out,
) -> None:
    """Read a Llama checkpoint, write it in float32 and say how to start a run from it."""
    from mor.model.exchange import load

    _refuse_used(out)
    shape = read_shape(checkpoint)
    tokenizer = (checkpoint / TOKENIZER).exists()
    if tokenizer:
        read_object(checkpoint / TOKENIZER)
    _write(load(checkpoint), out)
    size, model = shape.size, shape.model
    settings = {f"size.{name}": value for name, value in vars(size).items() if name != "name"}
    data: dict[str, object] = {"data.vocab_size": shape.vocab_size}
    if tokenizer:
        shutil.copy(checkpoint / TOKENIZER, out / TOKENIZER)
        data["data.tokenizer"] = out / TOKENIZER
    rest = {"model.norm_eps": model.norm_eps, "model.rope_theta": model.rope_theta}
    start: dict[str, object] = {
        "train.init_from": out,
        "size.name": size.name,
        **settings,
        **data,
        **rest,
    }
    if unread := (checkpoint / LLAMA).exists() and unread_settings(checkpoint):
        print(f"not read in {checkpoint / LLAMA}: {', '.join(unread)}")
    print(
        f"{out}: {size.n_layers} layers of width {size.d_model}. A recursive model starts from it "
        "with\npython sweep.py model=recursive "
        + " ".join(setting(name, str(value)) for name, value in start.items())
    )


@app.command(name="prepare", context_settings={"allow_interspersed_args": True})
def prepare_corpus(
    settings: Annotated[
        list[str], typer.Argument(help="Settings as for sweep.py: data=... data.tokens=...")
    ],
    verify: Annotated[
        bool, typer.Option(help="Read what is there already and compare its digests.")
    ] = True,
) -> None:
    """Tokenise a corpus, or more of it, before runs need it. Stopped or killed at any moment, the
    same command goes on; preparing more changes no row that a run reads."""
    from mor.data.build import PreparationStopped
    from mor.data.command import run

    try:
        run(settings, verify)
    except PreparationStopped:
        print("stopped; type the same command again to go on", file=sys.stderr)
        raise typer.Exit(130) from None


def _write(model: Transformer, out: Path) -> None:
    """Write the whole model, or nothing."""
    from mor.model.exchange import save

    temporary = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        save(model, temporary)
        if out.exists():
            out.rmdir()
        temporary.rename(out)
    except OSError as error:
        raise UserError(
            f"{out}: cannot be written ({error.strerror}); name another folder"
        ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _refuse_used(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: is not empty; name a new folder")


def main() -> int:
    try:
        app(standalone_mode=True)
    except UserError as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

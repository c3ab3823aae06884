"""`python -m mor`: trained models scored and out as published weights, Llama checkpoints in."""

from __future__ import annotations

import shutil
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mor.config import UserError
from mor.model.llama import LLAMA, read_shape

if TYPE_CHECKING:
    from mor.model.transformer import Transformer

app = typer.Typer(
    help="Trained models scored and out as published weights, Llama checkpoints in.\n\n"
    "Examples:\n\n"
    "    python -m mor evaluate runs/mor-360m-5e18-47c4bebb --tasks paper\n\n"
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
def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run: runs/<run id>.")],
    tasks: Annotated[
        str, typer.Option(help="paper, small, corpus, or a .jsonl or .yaml file or a folder.")
    ] = "paper",
    limit: Annotated[int | None, typer.Option(help="Documents of each task, at most.")] = None,
    shots: Annotated[
        int | None, typer.Option(help="Examples in front of each document; else the tasks' own.")
    ] = None,
) -> None:
    """Score a run on tasks by lm-evaluation-harness, routed as at inference; the scores stand in
    runs/<run id>/evaluations/<task set>.json (docs/evaluation.md)."""
    from ledger.folder import RunFolder
    from ledger.provenance import provenance
    from mor.evaluate.evaluation import Extent, evaluate_run
    from mor.evaluate.show import lines_of
    from mor.evaluate.task_sets import task_set

    extent, chosen, folder = Extent(limit, shots), task_set(tasks), RunFolder(run.absolute())
    found = evaluate_run(folder, chosen, extent, provenance())
    print("\n".join(lines_of(found)))
    print(folder.evaluation_file(extent.name(chosen)))


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
    _write(load(checkpoint), out)
    data = f"data.vocab_size={shape.vocab_size}"
    if (checkpoint / TOKENIZER).exists():
        shutil.copy(checkpoint / TOKENIZER, out / TOKENIZER)
        data += f" data.tokenizer={out / TOKENIZER}"
    size, model = shape.size, shape.model
    settings = {name: getattr(size, name) for name in vars(size) if name != "name"}
    print(
        f"{out}: {size.n_layers} layers of width {size.d_model}. A recursive model starts from it "
        f"with\npython sweep.py model=recursive train.init_from={out} size.name={size.name} "
        + " ".join(f"size.{name}={value}" for name, value in settings.items())
        + f" {data} model.norm_eps={model.norm_eps:g} model.rope_theta={model.rope_theta:g}"
    )


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

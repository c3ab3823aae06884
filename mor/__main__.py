"""`python -m mor`: corpora; trained models generate, are scored and go out as published weights;
Llamas in."""

from __future__ import annotations

from ledger import interrupts

if __name__ == "__main__":
    interrupts.watch()  # before imports that take long

import shutil
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperGroup

from ledger.usage import OneSentence
from mor.command_line import setting
from mor.config import ConfigError, UserError
from mor.model.checks import has_all_weights
from mor.model.llama import LLAMA, read_shape, unread_settings
from mor.model.published import read_json


class Group(OneSentence, TyperGroup):
    """The commands."""


app = typer.Typer(
    cls=Group,
    help="Corpora prepared; trained models generate, are scored and go out as published weights; "
    "Llama checkpoints in.\n\n"
    "Examples:\n\n"
    "    python -m mor prepare data=fineweb_edu data.tokens=16e9 runtime.workers=32\n\n"
    "    python -m mor evaluate runs/mor-360m-5e18-49c8f3e9 --tasks paper\n\n"
    "    python -m mor generate runs/mor-360m-5e18-49c8f3e9 --prompt 'def main('\n\n"
    "    python -m mor export runs/mor-360m-5e18-49c8f3e9 out hf\n\n"
    "    python -m mor import-llama SmolLM-360M smol      then train.init_from=smol",
    no_args_is_help=True,
    add_completion=False,
)
Out = Annotated[Path, typer.Argument(help="New folder for the weights.")]
TOKENIZER = "tokenizer.json"


@app.command()
def export(
    run: Annotated[
        Path, typer.Argument(help="A finished run, runs/<run id>, or exported weights.")
    ],
    out: Out,
    form: Annotated[str, typer.Argument(help="own, or hf: a folder for transformers.")] = "own",
) -> None:
    """Write a run's weights as safetensors and JSON: as a Llama where it is one, which
    transformers loads, else under our own names. `hf`: with its tokenizer, and every architecture
    as transformers loads it after `import mor.hf`."""
    from mor.export import export_for_transformers, tokenizer_of
    from mor.model.exchange import is_llama, save
    from mor.train.initial import trained_model

    if form not in ("own", "hf"):
        raise ConfigError("form", form, "no such form of weights", "type own or hf")
    _refuse_used(out)
    model = trained_model(run.absolute())
    llama = is_llama(model.model)
    if form == "own":
        _write(lambda folder: save(model, folder), out)
        said = "transformers loads it as LlamaForCausalLM" if llama else "our own form"
    else:
        tokenizer = tokenizer_of(run.absolute())
        _write(lambda folder: export_for_transformers(run.absolute(), model, folder), out)
        first = "" if llama else "after import mor.hf, "
        said = f"{first}transformers loads it with AutoModelForCausalLM.from_pretrained"
        said += "" if tokenizer else "; there was no tokenizer beside its weights"
    print(f"{out}: {said}; another run starts from it with train.init_from={out}")


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
    from mor.train.run import Hooks

    extent, chosen, folder = Extent(limit, shots), task_set(tasks), RunFolder(run.absolute())
    found = evaluate_run(folder, chosen, extent, Hooks(provenance=provenance()))
    print("\n".join(lines_of(found)))
    print(folder.evaluation_file(extent.name(chosen)))


@app.command()
def generate(
    source: Annotated[
        Path, typer.Argument(help="A finished run, runs/<run id>, or weights exported with hf.")
    ],
    prompt: Annotated[list[str], typer.Option(help="The text to continue; may be repeated.")],
    max_new: Annotated[
        int | None, typer.Option(help="New tokens, at most; else 64, or what the context leaves.")
    ] = None,
    temperature: Annotated[float, typer.Option(help="0: the likeliest token.")] = 0.0,
    top_k: Annotated[int | None, typer.Option(help="Draw among the k likeliest.")] = None,
    top_p: Annotated[float, typer.Option(help="Draw among the likeliest with this share.")] = 1.0,
    seed: Annotated[int, typer.Option(help="What is drawn depends on it alone.")] = 0,
    show_depth: Annotated[
        bool, typer.Option("--show-depth", help="Each token with the blocks that it took.")
    ] = False,
    max_recursions: Annotated[
        int | None, typer.Option(help="A token takes no more; looped models take as many.")
    ] = None,
    pool_tokens: Annotated[
        int | None, typer.Option(help="Tokens that the pool of keys and values has room for.")
    ] = None,
    exit_rule: Annotated[
        str | None,
        typer.Option(help="entropy, or kl between loops: looped tokens leave once it is below."),
    ] = None,
    exit_threshold: Annotated[float | None, typer.Option(help="Of --exit-rule, in nats.")] = None,
) -> None:
    """Continue prompts by a trained model, routed as at inference, with the engine that batches
    tokens of different recursions (docs/inference.md)."""
    from mor.inference.command import Session, exits_of, named_by_flags, open_trained
    from mor.inference.request import Sampling

    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
    exits = exits_of(exit_rule, exit_threshold)
    trained = open_trained(source.absolute())
    with named_by_flags():
        session = Session(trained, prompt, sampling, max_new, max_recursions, pool_tokens, exits)
    for i, text in enumerate(prompt):
        print(text, end="", flush=True)
        for part in session.text(i):
            print(part, end="", flush=True)
        print()
        if show_depth:
            print("\n".join(session.depths(i)))
    if show_depth:
        print(f"mean depth {session.engine.statistics().mean_depth:.2f}")


@app.command()
def inspect(
    source: Annotated[
        Path, typer.Argument(help="A finished run, runs/<run id>, or weights exported with hf.")
    ],
    text: Annotated[
        Path | None,
        typer.Option(help="A text file of yours; else the rows that the run was validated on."),
    ] = None,
    checkpoint: Annotated[
        str, typer.Option(help="final, all, or the name of one in the run's checkpoints/.")
    ] = "final",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for JSON, page and figures; else runs/<run id>/inspections."),
    ] = None,
    draw: Annotated[bool, typer.Option(help="Figures of it: PNG, SVG and PDF.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
) -> None:
    """Show what a model does with a text: depth of each token, loss with fewer recursions, router
    scores, dead positions, agreement of the rule of inference, keys and values across depths."""
    from mor.evaluate.inspection import inspect as measure
    from mor.evaluate.inspection import lines_of
    from mor.evaluate.inspection_files import drawn, write

    found = measure(source.absolute(), text, checkpoint)
    files = write(found, source.absolute(), out)
    if as_json:
        print(files.json.read_text(), end="")
    else:
        print("\n".join(lines_of(found)) + "\n")
    to = sys.stderr if as_json else sys.stdout
    print("\n".join(map(str, [files.json, *files.pages])), file=to)
    for line in drawn(files.json) if draw else []:
        print(line, file=to)


@app.command()
def import_llama(
    checkpoint: Annotated[
        Path, typer.Argument(help="Folder of a Llama: config.json, safetensors.")
    ],
    out: Out,
) -> None:
    """Read a Llama checkpoint, write it in float32 and say how to start a run from it."""
    from mor.data.tokenizer import ByteTokenizer
    from mor.model.exchange import load, save

    _refuse_used(out)
    shape = read_shape(checkpoint)
    if not has_all_weights(shape.model):
        raise UserError(
            f"{checkpoint}: holds {shape.model.name}, which is no Llama; name the folder of one"
        )
    tokenizer = (checkpoint / TOKENIZER).exists()
    if tokenizer:
        read_json(checkpoint / TOKENIZER)
    found = load(checkpoint)

    def written(folder: Path) -> None:
        save(found, folder)
        if tokenizer:
            shutil.copy(checkpoint / TOKENIZER, folder / TOKENIZER)

    _write(written, out)
    size, model = shape.size, shape.model
    settings = {f"size.{name}": value for name, value in vars(size).items() if name != "name"}
    data: dict[str, object] = {"data.vocab_size": shape.vocab_size}
    if tokenizer:
        data["data.tokenizer"] = out / TOKENIZER
    elif shape.vocab_size == ByteTokenizer.entries:  # the default corpus has a tokenizer of its own
        data = {"data": "stdlib", **data}
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


def _write(save: Callable[[Path], None], out: Path) -> None:
    """Write the whole folder with its digests, or nothing."""
    from mor.model.digests import seal

    temporary = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        save(temporary)
        seal(temporary)
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
    if out.resolve() == Path.cwd():
        raise UserError(f"{out}: is the folder that you are in; name a new folder")
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file; name a new folder")
    if out.is_dir() and any(out.iterdir()):
        raise UserError(f"{out}: is not empty; name a new folder")


def main() -> int:
    try:
        app(standalone_mode=True)
    except UserError as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return interrupts.CODE
    return 0


if __name__ == "__main__":
    sys.exit(main())

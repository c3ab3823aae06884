"""The schema of a run: every value that `conf/` may set, with its unit and its range.

Plain dataclasses, standard library only, so that planning and the benchmarks import nothing heavy.
`from_dict` builds a `Config` from a resolved dictionary and refuses unknown keys and wrong types
with a `ConfigError`, whose message is one sentence that names the setting, its value and what to
type instead. What can be trained at all is checked by `mor.validate`.

A field marked `where()` says where or how a run executes (paths, devices, logging) and is left out
of the run's identity; every other field is part of it (`mor.identity`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
import types
import typing
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ledger.errors import UserError as UserError
from ledger.wandb import PROJECT
from mor.values import ConfigError as ConfigError
from mor.values import group_of as group_of
from mor.values import needed as needed
from mor.values import scalar
from mor.values import text_of as text_of

T = TypeVar("T")


def where(default: Any) -> Any:
    """A field that says where or how a run executes: no part of the run's identity."""
    return field(default=default, metadata={"identity": False})


def where_set() -> Any:
    """A field that is part of the identity where it is set: null leaves ids as they were."""
    return field(default=None, metadata={"identity": "where set"})


def where_changed(default: Any) -> Any:
    """A field that is part of the identity where it is not at its default: ids of runs that leave
    it alone stay."""
    return field(default=default, metadata={"identity": "where changed"})


@dataclass(frozen=True)
class SizeConfig:
    """The shape of the base (vanilla) model; recursive ones are derived from it."""

    name: str  # as it stands in run ids
    n_layers: int  # layers of the vanilla model
    d_model: int  # width of the residual stream
    n_heads: int  # query heads
    n_kv_heads: int  # key and value heads (grouped-query attention)
    d_head: int  # width of one head
    d_ff: int  # hidden width of the SwiGLU MLP


@dataclass(frozen=True)
class RouterConfig:
    """How tokens are routed (paper sec. 2.2.1)."""

    type: str = "none"  # none | expert (expert choice) | token (token choice) | mod
    network: str = "linear"  # linear | mlp (2d hidden) | wide_mlp (4d hidden) | random (none)
    activation: str = "sigmoid"  # sigmoid | tanh | softmax (token choice) | none
    alpha: float = 0.1  # scale of the gate, dimensionless
    gating: str = "weighted"  # weighted: the block's output times its gate | plain: ungated
    temperature: float = 1.0  # the router reads states divided by it
    sampling: str = "aux_loss"  # expert choice: aux_loss | aux_router
    aux_coeff: float = 0.001  # weight of the auxiliary loss (aux_router: 1 by definition)
    capacity_warmup_steps: int = 0  # expert choice: cosine from capacity 1 to the target
    balancing: str = "loss"  # token choice: loss | loss_free
    balance_coeff: float = 0.1  # weight of the balancing loss
    bias_update_rate: float = 0.001  # u of the loss-free bias, per step
    balance_warmup_steps: int = 0  # token choice: every token takes every recursion before this
    z_coeff: float = 0.0  # weight of the router z-loss


@dataclass(frozen=True)
class RelaxationConfig:
    """What each recursion may have of its own, beside the tied block (paper app. E)."""

    type: str = "none"  # none | encoding | scaling | lora | dora | prompt
    rank: int = 64  # lora, dora: of the maps q and v
    prompt_length: int = 256  # prompt: learned keys and values of each layer


@dataclass(frozen=True)
class ModelConfig:
    """Architecture: an unshared stack, a block applied several times, or one that routes tokens.

    Which names a field takes is known to the components alone (`mor.model.components`).
    """

    name: str  # as it stands in run ids
    architecture: str = "vanilla"  # vanilla | recursive | mor | looped
    n_recursions: int = 1  # Nr, how often the shared block is applied
    block_layers: int | None = None  # unique layers in the shared block; null: divided, rounded up
    sharing: str = "middle_cycle"  # cycle | sequence | middle_cycle | middle_sequence
    kv: str = "recursion"  # recursion | shared | hybrid | cycle | sequence | middle_cycle
    kv_share: int = 2  # depths to one set of keys and values (cycle, sequence, middle_cycle)
    capacity: tuple[float, ...] | None = None  # share of tokens per recursion; null: (Nr-r+1)/Nr
    router: RouterConfig = field(default_factory=RouterConfig)
    relaxation: RelaxationConfig = field(default_factory=RelaxationConfig)
    document_mask: bool = False  # tokens attend within their own document only
    rope_theta: float = 10000.0  # base of the rotary embedding
    norm_eps: float = 1e-5  # epsilon of RMSNorm
    init_std: float = 0.02  # standard deviation of the initial weights
    # settings that a component brings along, each set as model.<name>; null: it brings none
    options: Any = field(default=None, metadata={"inline": True})

    @staticmethod
    def inline_type(values: dict[str, Any]) -> type | None:
        """The dataclass of the settings in `options`, for a model's settings."""
        from mor.model.components import options_type

        return options_type(values)


@dataclass(frozen=True)
class DataConfig:
    """Corpus and tokenizer. The fingerprint stands for all of it in the run's identity."""

    name: str = where("stdlib")
    kind: str = where("stdlib")  # stdlib | files | hub
    vocab_size: int = 256  # entries of the embedding
    fingerprint: str | None = None  # filled in when a run is planned
    paths: tuple[str, ...] = where(())  # files: paths or glob patterns
    text_field: str = where("text")  # files, hub: the column that holds the text
    dataset: str | None = where(None)  # hub: repository of the dataset
    subset: str | None = where(None)  # hub: configuration of the dataset
    revision: str | None = where(None)  # hub: commit of the dataset
    tokenizer: str = where("bytes")  # bytes | train | path of a tokenizer.json | name on the hub
    val_fraction: float = where(0.05)  # share of documents held out
    max_tokens: int | None = where(None)  # training tokens of the corpus at most; null: all
    encoding: str = where("utf-8")  # of text and JSON
    separator: str | None = where(None)  # the tokenizer's entry after each document; null: known
    on_bad_row: str = where("skip")  # skip | stop: at a row without text
    sharded: bool = where(False)  # files: in shards, of which more can be prepared later
    shard_mb: int = where(64)  # text of a shard, MB
    window_tokens: int = where(268_435_456)  # tokens whose rows are shuffled together
    tokens: float | None = where(None)  # shards: training tokens to prepare at least
    mirror: str | None = where(None)  # hub: a copy of the dataset's repository on this machine
    cache_dir: str = where("data_cache")  # where the tokenised corpus lies


@dataclass(frozen=True)
class TrainConfig:
    """Optimiser, batch and schedule (paper app. B and C)."""

    batch_size: int = 1024  # sequences per step
    seq_len: int = 2048  # tokens per sequence
    lr: float = 3e-3  # peak learning rate
    # laws that give lr and batch_size by size and tokens: a built-in name (paper, olmo_ladder,
    # steplaw) or a JSON file (docs/studies.md); null: the numbers as they stand
    recipe: str | None = where(None)
    lr_factor: float = where(1.0)  # of the recipe's rate, else of lr; resolved when planned
    # of the recipe's batch, else of batch_size; resolved when planned
    batch_factor: float = where(1.0)
    beta1: float = 0.9
    beta2: float = 0.95
    weight_decay: float = 0.1  # on matrices only
    clip: float = 1.0  # maximal gradient norm
    optimizer: str = where_changed("adamw")  # adamw | muon (matrices of layers; adamw for the rest)
    muon_lr: float | None = where_set()  # muon: its peak learning rate; null: train.lr
    muon_momentum: float = where_changed(0.95)  # muon
    precision: str = "bf16"  # fp32 | bf16 (weights stay fp32)
    schedule: str = "trapezoid"  # trapezoid | cosine
    warmup_fraction: float = 0.05  # of the steps of the warm-up budget
    warmup_budget: float = 2e18  # FLOPs; the named budget that warm-up belongs to
    warmup_recursions: int | None = 3  # Nr that warm-up is counted at; null: the run's own
    warmup_steps: int | None = None  # overrides the three above
    cooldown_fraction: float = 0.2  # of each budget
    val_tokens: int = 1_048_576  # validation tokens at the end of a run
    eval_points: int = where(0)  # validations on the way to each budget, evenly spaced; 0: none
    eval_tokens: int | None = where(None)  # validation tokens of each of these; null: val_tokens
    init_from: str | None = where(None)  # run or exported folder of a vanilla model to start from
    init_method: str | None = where_set()  # stepwise | average | lower | upper | random (sec. 2.1)
    init_fingerprint: str | None = where_set()  # of its weights; filled in when a run is planned
    branch: bool = where(True)  # cool down from a shared trunk; false: from scratch, same numbers


@dataclass(frozen=True)
class FlopsConfig:
    convention: str = "paper"  # paper | exact | 6nd: what a budget is a number of


@dataclass(frozen=True)
class RuntimeConfig:
    """Where and how a run executes: nothing here changes a run's identity."""

    device: str = where("auto")  # auto | cpu | cuda
    threads: int = where(1)  # CPU threads of torch
    workers: int | None = where(None)  # processes that prepare a corpus; null: CPU cores
    parallel: str = where("ddp")  # ddp | fsdp: how several processes share one run
    # sequences per forward of a process; auto: what fits on its GPU; null: its whole batch
    micro_batch: int | str | None = where("auto")
    loss_chunk: int | None = where(None)  # tokens whose logits are held at once; null: all
    masks: str = where("auto")  # blocks (FlexAttention) | dense; auto: blocks on a GPU
    # activations computed twice, not kept: none | recursion | layer; auto: layers, where a single
    # sequence does not fit otherwise
    recompute: str = where("auto")
    # torch.compile of each layer; auto: on a GPU, where every step has the same shapes
    compile: bool | str = where("auto")
    checkpoint_s: float = where(300.0)  # seconds between checkpoints
    async_checkpoint: bool = where(True)  # written by a thread, from a copy in host memory
    keep_checkpoints: int = where(2)  # rolling ones; plateau ends are always kept
    log_steps: int = where(10)  # steps between lines of metrics.jsonl
    peak_tflops: float | None = where(None)  # of the device, for MFU; null: by the device's name
    wandb: str = where("disabled")  # disabled | offline | online
    wandb_project: str = where(PROJECT)


@dataclass(frozen=True)
class Config:
    """One run, resolved: everything that `mor.train` needs."""

    model: ModelConfig
    size: SizeConfig
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    flops: FlopsConfig = field(default_factory=FlopsConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig, metadata={"identity": False})
    budget: float = 2e18  # FLOPs under flops.convention
    tokens: float | None = where(None)  # training tokens that budget was worked out from, if any
    label: str | None = where(None)  # what a study calls this run: the name of its variant
    seed: int = 0  # of the initial weights and of the data order

    @property
    def curve(self) -> str:
        """What its curve is called: the variant of its study, or the model."""
        return self.label or self.model.name


# -- from a dictionary ------------------------------------------------------------------------


def from_dict(cls: type[T], values: dict[str, Any], path: str = "") -> T:
    """Build a dataclass from a plain dictionary, checking names and types.

    Raises ConfigError for an unknown key (with the nearest known one) or a value of another type.
    """
    hints, known = _schema(typing.cast(Any, cls))
    inline, inner = _inline(cls, values)
    kwargs, own = {}, {}
    for key, value in values.items():
        name = f"{path}{key}"
        if key in inner:
            own[key] = value
        elif key not in known:
            names = [*known, *inner]
            raise ConfigError(name, value, "no such setting", did_you_mean(key, names, path))
        else:
            kwargs[key] = _convert(hints[key], value, name)
    if inline:
        kwargs["options"] = from_dict(inline, own, path)
    for key, spec in known.items():
        required = spec.default is spec.default_factory is dataclasses.MISSING
        if required:
            needed(kwargs, key, path)
    return cls(**kwargs)


def replace_at(config: T, path: str, value: Any) -> T:
    """A copy with one setting, named by its dotted path, replaced. Raises ConfigError."""
    return _replace_at(config, path.split("."), value, path)


def _replace_at(node: T, keys: list[str], value: Any, path: str) -> T:
    hints, known = _schema(typing.cast(Any, type(node)))
    key, *rest = keys
    options = getattr(node, "options", None)
    if options is not None and not rest and key in _schema(typing.cast(Any, type(options)))[1]:
        inner = _convert(_schema(typing.cast(Any, type(options)))[0][key], value, path)
        replaced = dataclasses.replace(options, **{key: inner})
        return dataclasses.replace(node, options=replaced)  # type: ignore[type-var]
    if key not in known or (rest and not dataclasses.is_dataclass(getattr(node, key))):
        prefix = path.removesuffix(".".join(keys))
        raise ConfigError(path, value, "no such setting", did_you_mean(key, known, prefix))
    if rest:
        inner = _replace_at(getattr(node, key), rest, value, path)
    else:
        inner = _convert(hints[key], value, path)
    return dataclasses.replace(node, **{key: inner})  # type: ignore[type-var]


@functools.cache
def _schema(cls: Any) -> tuple[dict[str, Any], dict[str, dataclasses.Field[Any]]]:
    """Types and fields of a dataclass, by name."""
    fields = {f.name: f for f in dataclasses.fields(cls) if not f.metadata.get("inline")}
    return typing.get_type_hints(cls), fields


def _inline(cls: type[Any], values: dict[str, Any]) -> tuple[type | None, typing.Collection[str]]:
    """The dataclass whose fields stand beside those of `cls`, and their names."""
    find = getattr(cls, "inline_type", None)
    inline = find(values) if find else None
    return inline, _schema(typing.cast(Any, inline))[1] if inline else ()


# what sbatch calls settings of ours whose names are not near
OF_SBATCH = {"time": "timeout_min", "cpus": "cpus_per_task", "mem": "mem_gb"}
UNITS = {"timeout_min": "minutes", "mem_gb": "GB"}


def did_you_mean(key: str, known: typing.Iterable[str], path: str = "") -> str:
    """What to type instead of a misspelt name: the nearest known one, or all of a few."""
    names = sorted(known)
    group, dot, own = key.rpartition(".")
    if (ours := OF_SBATCH.get(own)) and f"{group}{dot}{ours}" in names:
        unit = f", in {UNITS[ours]}" if ours in UNITS else ""
        return f"type {path}{group}{dot}{ours}=...{unit}"
    close = difflib.get_close_matches(key, names, n=1)
    if close:
        return f"did you mean {path}{close[0]}?"
    if len(names) > 20:
        return "python sweep.py --help lists the settings"
    return "known here: " + ", ".join(f"{path}{name}" for name in names)


def _convert(hint: Any, value: Any, name: str) -> Any:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        *others, hint = [arm for arm in typing.get_args(hint) if arm is not type(None)]
        for arm in others:
            with contextlib.suppress(ConfigError):
                return _convert(arm, value, name)
        origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint):
        return from_dict(typing.cast(type, hint), group_of(name, value), f"{name}.")
    if origin is dict:
        if not isinstance(value, dict):
            raise ConfigError(name, value, "expected a mapping", f"set {name}.<key>=...")
        return {str(key): item for key, item in value.items()}
    if origin is tuple:
        arm = typing.get_args(hint)[0]
        items = [value] if isinstance(value, str | int | float) else value
        if not isinstance(items, list | tuple):
            raise ConfigError(name, value, "expected a list", f"type '{name}=[a,b]'")
        return tuple(_convert(arm, item, name) for item in items)
    return scalar(hint, value, name)


def to_dict(config: Any) -> dict[str, Any]:
    """A dataclass as plain dictionaries and lists, ready for YAML or JSON."""
    found: dict[str, Any] = {}
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if not f.metadata.get("inline"):
            found[f.name] = _plain(value)
        elif value is not None:
            found |= to_dict(value)
    return found


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value

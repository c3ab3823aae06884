"""Sets of evaluation tasks by name, as planning sees them. Neither torch nor the harness.

- `paper`: the six benchmarks of the paper's tables, with its normalisation (app. B);
- `small`: the same documents in a form that separates small models: the negative
  log-likelihood of the right answer, in bits per byte;
- `corpus`: tasks made from the held-out text that a run was validated on; no download, seconds;
- a path: a .jsonl file, a task's .yaml file, or a folder of both (docs/evaluation.md).
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from ledger.folder import RunFolder
from mor.config import ConfigError, UserError
from mor.evaluate.documents import SUFFIXES, refuse_wrong

ACCURACY, BITS = "accuracy, %", "bits per byte"


@dataclass(frozen=True)
class Benchmark:
    """A column of the paper's main table: files below the harness's tasks/, and what counts."""

    files: dict[str, str]  # patterns of files, with those of the names of their tasks
    metric: str  # acc_bytes: of answers compared by log-likelihood per byte
    pooled: bool = False  # mean over all documents of its tasks, else over its tasks


# Accuracy is normalised by the answer's bytes except for LAMBADA, WinoGrande and MMLU, which is the
# continuation form. Shots are those that the harness's tasks say: none.
BENCHMARKS = {
    "lambada": Benchmark({"lambada/lambada_openai.yaml": "lambada_openai"}, "acc"),
    "hellaswag": Benchmark({"hellaswag/hellaswag.yaml": "hellaswag"}, "acc_bytes"),
    "piqa": Benchmark({"piqa/piqa.yaml": "piqa"}, "acc_bytes"),
    "winogrande": Benchmark({"winogrande/default.yaml": "winogrande"}, "acc"),
    "arc": Benchmark(
        {"arc/arc_easy.yaml": "arc_easy", "arc/arc_challenge.yaml": "arc_challenge"}, "acc_bytes"
    ),
    "mmlu": Benchmark({"mmlu/continuation/mmlu_*.yaml": "mmlu_*_continuation"}, "acc", pooled=True),
}


@dataclass(frozen=True)
class Preset:
    unit: str
    version: int  # counted up where its tasks or scores change: what was scored is scored again
    tokens: float  # that one evaluation of a subword model scores, roughly: for its price


PRESETS = {
    "paper": Preset(ACCURACY, 1, 1.5e7),
    "small": Preset(BITS, 1, 1.5e7),
    "corpus": Preset(BITS, 1, 6e4),
}
LOCAL_TOKENS = 1e6  # of tasks of one's own, for their price


@dataclass(frozen=True)
class TaskSet:
    """What `--tasks` and `study.evaluate` name."""

    given: str  # a preset, or a full path: what names it once more
    name: str  # of its file in the ledger
    fingerprint: str  # of its tasks: other tasks or another harness are scored again
    unit: str
    path: Path | None = None  # None: a preset
    tokens: float = LOCAL_TOKENS

    @property
    def files(self) -> list[Path]:
        """The .jsonl and .yaml files of a path."""
        assert self.path is not None
        return _files(self.path)


def task_set(given: str, setting: str = "tasks") -> TaskSet:
    """The set of a preset's name or of a path, whose files are read whole: a line that is no
    document is found before anything is trained. Raises ConfigError that names `setting`, and
    UserError."""
    version = harness_version()
    if given in PRESETS:
        preset = PRESETS[given]
        said = _digest([given, preset.version, version])
        return TaskSet(given, given, said, preset.unit, tokens=preset.tokens)
    path = Path(given).expanduser().absolute()
    if not path.exists():
        raise ConfigError(
            setting, given, "neither a task set nor a path that exists",
            f"type one of {', '.join(PRESETS)}, or a .jsonl or .yaml file or a folder of them",
        )  # fmt: skip
    files = _files(path)
    if not files:
        raise ConfigError(
            setting, given, "holds no task", "name a folder with .jsonl or .yaml files"
        )
    name = re.sub(r"[^\w.-]+", "-", path.stem if path.is_file() else path.name)
    if name in PRESETS:
        raise ConfigError(
            setting, given, f"its name is that of the preset {name}", "rename the file or folder"
        )
    refuse_wrong(files, setting)
    beside = sorted(path.iterdir()) if path.is_dir() else files  # a task's data, too
    contents = [
        [file.name, hashlib.sha256(file.read_bytes()).hexdigest()]
        for file in beside
        if file.is_file()
    ]
    return TaskSet(str(path), name, _digest([contents, version]), BITS, path)


def evaluated(folder: RunFolder, name: str, fingerprint: str) -> bool:
    """Whether a run has its scores on all of a task set, as the fingerprint has it."""
    found = folder.evaluation(name)
    return found is not None and found.fingerprint == fingerprint


def harness_version() -> str:
    """The version of lm-evaluation-harness. Raises UserError where it is not installed."""
    try:
        return metadata.version("lm_eval")
    except metadata.PackageNotFoundError:
        raise UserError(
            "tasks: lm-evaluation-harness is not installed here; type "
            "pip install --no-deps -r requirements.lock"
        ) from None


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix in SUFFIXES else []
    return sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)


def _digest(values: list[object]) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:12]

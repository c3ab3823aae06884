"""What all tests share: the published numbers, and small configurations."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from mor.config import (
    Config,
    DataConfig,
    ModelConfig,
    RouterConfig,
    RuntimeConfig,
    SizeConfig,
    TrainConfig,
)

REPO = Path(__file__).parents[1]
PUBLISHED = (REPO / "analysis" / "reference", REPO / "tests" / "reference" / "paper")

# Property tests try the same examples every time; HYPOTHESIS_PROFILE=search tries new ones.
settings.register_profile("fixed", derandomize=True)
settings.register_profile("search", print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))

OPTIONAL = {"public_points", "gpu"}  # fixtures of what CI cannot have


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """With MOR_TESTS_COMPLETE set, as in CI, a skip is a failure: everything is there to run."""
    report = yield
    optional = OPTIONAL.intersection(getattr(item, "fixturenames", ()))
    if report.skipped and os.environ.get("MOR_TESTS_COMPLETE") and not optional:
        report.outcome = "failed"
        report.longrepr = f"skipped where everything should run: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def paper_table() -> Callable[[str], list[dict[str, str]]]:
    """Rows of one of the paper's tables by its name, e.g. "table9_isoflop"."""

    def read(name: str) -> list[dict[str, str]]:
        path = next(f for folder in PUBLISHED if (f := folder / f"{name}.csv").is_file())
        with path.open() as file:
            return list(csv.DictReader(file))

    return read


@pytest.fixture(scope="session")
def architectures() -> dict[str, ModelConfig]:
    """One configuration of each architecture, by the name that conf/model gives it."""
    token = RouterConfig("token", activation="softmax", alpha=1.0, z_coeff=1e-5)
    return {
        "vanilla": ModelConfig("vanilla"),
        "recursive": ModelConfig("recursive", "recursive", 3),
        "mor": ModelConfig("mor", "mor", 3, router=RouterConfig("expert")),
        "mor_token": ModelConfig("mor_token", "mor", 3, router=token),
    }


@pytest.fixture(scope="session")
def tiny() -> SizeConfig:
    """A shape that trains hundreds of steps in a second or two."""
    return SizeConfig("tiny", n_layers=5, d_model=16, n_heads=2, n_kv_heads=1, d_head=8, d_ff=40)


@pytest.fixture
def toy_run(
    architectures: dict[str, ModelConfig], tiny: SizeConfig, tmp_path: Path
) -> Callable[..., Config]:
    """A run of `steps` tiny steps on a small text corpus, by architecture."""
    return toy_runs(tmp_path, architectures, tiny)


def toy_runs(
    root: Path, architectures: dict[str, ModelConfig], tiny: SizeConfig
) -> Callable[..., Config]:
    """What `toy_run` gives, with its corpus in `root`."""
    from mor.data.fingerprint import fingerprint
    from mor.flops import run_cost

    text = root / "corpus"
    text.mkdir()
    for i in range(40):
        words = " ".join(f"{(i * 7 + j * j) % 97} scaling law {j % 13}" for j in range(120))
        (text / f"{i:02d}.txt").write_text(f"document {i}\n{words}\n")
    data = DataConfig(
        name="toy",
        kind="files",
        paths=(str(text / "*.txt"),),
        val_fraction=0.2,
        cache_dir=str(root / "cache"),
    )
    data = DataConfig(**{**vars(data), "fingerprint": fingerprint(data)})

    def make(architecture: str = "mor", steps: int = 20, **train: object) -> Config:
        settings = {
            "batch_size": 4,
            "seq_len": 32,
            "precision": "fp32",
            "val_tokens": 512,
            "warmup_steps": 3,
            **train,
        }
        config = Config(
            architectures[architecture],
            tiny,
            data,
            TrainConfig(**settings),  # type: ignore[arg-type]
            runtime=RuntimeConfig(device="cpu", log_steps=1),
        )
        step = run_cost(config).step_flops["paper"]
        return Config(**{**vars(config), "budget": steps * step})

    return make


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium; a test that opens a page skips where there is none."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium")
    if path is None:
        pytest.skip("there is no chromium on this machine")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()

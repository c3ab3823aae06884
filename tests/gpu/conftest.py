"""The GPU that these tests need; in `make test` they are skipped where there is none."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch


@pytest.fixture
def gpu() -> Iterator[torch.device]:
    """MOR_GPU_TESTS=cpu runs the tests on the CPU, to check the tests themselves."""
    if os.environ.get("MOR_GPU_TESTS") == "cpu":
        yield torch.device("cpu")
        return
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU on this machine")
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False  # losses are compared with the CPU's
    yield torch.device("cuda", torch.cuda.current_device())
    torch.backends.cuda.matmul.allow_tf32 = before
    torch.cuda.empty_cache()

"""A GPU that is not there: the stub of its driver, built and loaded before torch is imported."""

from __future__ import annotations

import ctypes
import importlib.util
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("guard.cpp")


def torch_folder() -> Path:
    found = importlib.util.find_spec("torch")
    assert found is not None
    assert found.submodule_search_locations
    return Path(found.submodule_search_locations[0])


def build(folder: Path) -> Path:
    """Compile the stub into a folder; returns the library."""
    include, library = torch_folder() / "include", folder / "guard.so"
    paths = [f"-I{include}", f"-I{include / 'torch/csrc/api/include'}"]
    command = ["g++", "-std=c++20", "-O0", "-shared", "-fPIC", *paths, str(SOURCE)]
    subprocess.run([*command, "-o", str(library)], check=True)
    return library


def load(library: Path) -> None:
    """Put the stub in place. Call it before anything imports torch."""
    ctypes.CDLL(str(torch_folder() / "lib" / "libtorch_cpu.so"), mode=ctypes.RTLD_GLOBAL)
    ctypes.CDLL(str(library.resolve()))  # without a slash it is looked for among the system's

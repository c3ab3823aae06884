"""Inference: the engine (continuous depth-wise batching), and the decoder it is checked against."""

from mor.inference.confidence import Exits
from mor.inference.engine import Engine
from mor.inference.request import Completion, EngineError, Sampling, Settings

__all__ = ["Completion", "Engine", "EngineError", "Exits", "Sampling", "Settings"]

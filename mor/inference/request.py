"""What is asked of the engine, and how far it has come."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ledger.errors import UserError
from mor.inference.tables import Table

Ints = npt.NDArray[np.int64]


class EngineError(UserError):
    """A request or a setting that the engine cannot serve; the engine goes on."""


@dataclass(frozen=True)
class Settings:
    """How an engine batches and how much memory its keys and values have."""

    max_batch: int = 32  # requests in work at once
    chunk: int = 128  # prompt tokens of a request that enter together
    context: int = 2048  # tokens of a prompt and its continuation, at most
    page: int = 16  # tokens of one page
    pool_tokens: int | None = None  # tokens that fit at full depth; None: from kv_bytes
    kv_bytes: int | None = None  # bytes of keys and values; None: max_batch whole contexts, or
    # half of the free memory where that is less
    mean_depth: float | None = None  # blocks that a token is expected to take; the memory is shared
    # out between first, shared and last layers accordingly. None: all blocks
    bf16: bool = False  # as in training under autocast: linear maps, attention, keys and values in
    # bfloat16; the residual stream, norms, routers and the softmax of logits in float32
    graphs: bool | None = None  # single tokens in steps of fixed shape, each a CUDA graph on a GPU;
    # None: on a GPU
    depthwise: bool = True  # one batch for all recursions of a block; False: one for each

    def checked(self) -> Settings:
        """The same in plain Python values; 1e9 is a whole number. Raises EngineError for a number
        of another type or below 1."""
        plain: dict[str, Any] = {}
        for name in ("max_batch", "chunk", "context", "page", "pool_tokens", "kv_bytes"):
            value = getattr(self, name)
            if value is None and name in ("pool_tokens", "kv_bytes"):
                continue
            found = number(value)
            if found is None or found % 1:  # of infinity, too: it is not a number
                raise EngineError(f"{name}={shown(value)}: is no whole number; give one above 0")
            if found < 1:
                raise EngineError(f"{name}={value}: out of range; give a number above 0")
            plain[name] = int(_plain(value))
        if self.mean_depth is not None:
            plain["mean_depth"] = number(self.mean_depth)
            if plain["mean_depth"] is None:
                raise EngineError(
                    f"mean_depth={shown(self.mean_depth)}: is no number; give blocks of a token"
                )
        return replace(self, **plain)


@dataclass(frozen=True)
class Sampling:
    """How the tokens of one request are chosen."""

    max_new: int = 64
    temperature: float = 0.0  # 0: the likeliest token
    top_k: int | None = None  # among the k likeliest
    top_p: float = 1.0  # among the likeliest that hold this probability together
    seed: int = 0  # the sampled tokens depend on it and on nothing else in the engine
    stop: tuple[int, ...] = ()  # tokens that end the continuation; the last one given back
    score: bool = False  # also log-probabilities of the prompt's tokens, and whether each is greedy
    score_from: int = 1  # the first token of the prompt, from 0, that is scored

    def checked(self) -> Sampling:
        """The same in plain Python values. Raises EngineError for a setting of another type or out
        of range."""
        plain: dict[str, Any] = {}
        for name, (kind, wanted) in TYPES.items():
            value = getattr(self, name)
            plain[name] = kind(value)
            if plain[name] is None and not (name == "top_k" and value is None):
                raise EngineError(f"{name}={shown(value)}: of the wrong type; give {wanted}")
        return replace(self, **plain)._in_range()

    def _in_range(self) -> Sampling:
        wrong = {
            "max_new": (self.max_new >= (0 if self.score else 1), "1 or more"),
            "temperature": (0 <= self.temperature < float("inf"), "0 or more"),
            "top_k": (self.top_k is None or self.top_k >= 1, "1 or more"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1"),
            "score_from": (self.score_from >= 1, "1 or more"),
        }
        for name, (fine, wanted) in wrong.items():
            if not fine:
                value = getattr(self, name)
                raise EngineError(f"{name}={value}: out of range; give a number {wanted}")
        return self


def shown(value: Any) -> str:
    """Anything in one short line."""
    return " ".join(reprlib.repr(value).split())


def _plain(value: Any) -> Any:
    """A number of numpy or torch as one of Python; anything else as it is."""
    single = isinstance(value, np.generic | Tensor) and value.ndim == 0
    return value.item() if single else value


def whole_number(value: Any) -> int | None:
    """None for what is none, True and False among them."""
    value = _plain(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def number(value: Any) -> float | None:
    """The same for any number."""
    value = _plain(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return float("inf")


def truth(value: Any) -> bool | None:
    value = _plain(value)
    return value if isinstance(value, bool) else None


def whole_numbers(value: Any) -> tuple[int, ...] | None:
    """None where it is no collection of whole numbers only."""
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        return None
    try:
        found = [whole_number(one) for one in value]
    except TypeError:  # a tensor of one number
        return None
    known = tuple(one for one in found if one is not None)
    return known if len(known) == len(found) else None


TYPES: dict[str, tuple[Any, str]] = {
    "max_new": (whole_number, "a whole number"),
    "temperature": (number, "a number"),
    "top_k": (whole_number, "a whole number, or None for all tokens"),
    "top_p": (number, "a number"),
    "seed": (whole_number, "a whole number"),
    "stop": (whole_numbers, "a tuple of tokens, such as stop=(255,), or () for none"),
    "score": (truth, "True or False"),
    "score_from": (whole_number, "a whole number"),
}


@dataclass
class Completion:
    """What has become of a request."""

    tokens: list[int]  # the new ones
    depths: list[int]  # blocks that each token of prompt + continuation took; the newest has none
    reason: str | None = None  # stop | length | cancelled; None: not finished
    logprobs: list[float] = field(
        default_factory=list
    )  # of prompt tokens from score_from, under score
    greedy: list[bool] = field(default_factory=list)  # whether each is the likeliest, under score


@dataclass(eq=False)
class Request:
    """A sequence: its tokens, how many of them have been through the model, and its pages."""

    number: int
    prompt: int  # tokens of it
    tokens: list[int]
    sampling: Sampling
    table: Table
    done: int = 0  # tokens whose keys and values are in the pool
    chunk: Chunk | None = None  # in flight
    reason: str | None = None
    depths: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    greedy: list[bool] = field(default_factory=list)
    documents: list[int] = field(default_factory=list)  # start of each token's document

    @property
    def new(self) -> list[int]:
        return self.tokens[self.prompt :]

    @property
    def n_new(self) -> int:
        return len(self.tokens) - self.prompt

    def scored_in(self, chunk: Chunk) -> int:
        """The first token of a chunk whose follower is scored; its length: none is."""
        first = int(chunk.at[0])
        if not self.sampling.score or first >= self.prompt - 1:
            return chunk.length
        return min(max(0, self.sampling.score_from - 1 - first), chunk.length)

    def completion(self) -> Completion:
        known = self.depths[: len(self.tokens)]
        return Completion(self.new, known, self.reason, self.logprobs, self.greedy)


@dataclass(eq=False)
class Chunk:
    """Consecutive tokens of a request on their way through the blocks: one token when decoding.

    They leave for the last layers together, so that keys and values are written in order.
    """

    request: Request
    at: Ints  # (n,) positions
    rows: Ints  # (n,) rows of the states
    alive: Ints  # (n',) indices into `at` of the tokens in front of block r
    taking: Ints  # (n'',) those that take it
    depth: Ints  # (n,) blocks that each has taken
    r: int = 0
    dropped: bool = False  # its request was preempted, cancelled

    @property
    def length(self) -> int:
        return len(self.at)


def picked(values: Ints, some: Ints) -> Ints:
    """Those of a chunk's values (n,) at ascending indices; as many indices are all of them."""
    return values if len(some) == len(values) else values[some]

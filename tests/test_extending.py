"""The recipes of docs/extending.md for models, carried out: a sharing pattern and a router that the
code does not know. Those for a law, a backend and a figure stand in
tests/analysis/fits/parametric/test_laws.py, tests/sweeps/backends/test_third.py and
tests/analysis/paper/test_figures_command.py."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mor.config import ModelConfig, RouterConfig, UserError
from mor.data.batches import Batches
from mor.data.tokenizer import ByteTokenizer
from mor.evaluate.inspection import Inspection, Measured, Text, _corpus, depths_of, lines_of
from mor.evaluate.validation import final_validation
from mor.flops import count_params, planned_routing
from mor.inference.decode import Decoder
from mor.inference.decode import generate as decoded
from mor.inference.engine import Engine
from mor.inference.request import Sampling, Settings
from mor.model.components import ROUTERS, check_model, layout
from mor.model.routers.base import Forward, Router
from mor.model.routers.course import Course, Tokens, within
from mor.model.routers.routes import narrow
from mor.model.routers.spec import RouterSpec
from mor.model.sharing import PATTERNS, Pattern
from tests.mor.model.variants import SIZE, VOCAB, build, draw, recursive

LENGTH = 16
SETTINGS = Settings(context=32, max_batch=2)


def there_and_back(n_block: int, n_recursions: int) -> list[int]:
    """0,1,2,2,1,0,0,1,2: each recursion in the other direction."""
    ways = (list(range(n_block)), list(reversed(range(n_block))))
    return [layer for r in range(n_recursions) for layer in ways[r % 2]]


def test_a_sharing_pattern_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PATTERNS, "mirror", Pattern(there_and_back, True, aligned=False))
    model = recursive(sharing="mirror")
    check_model(model, SIZE)
    assert layout(model, SIZE).depths == (0, 1, 2, 2, 1, 1, 2, 3)
    built = build(model)
    assert sum(p.numel() for p in built.parameters()) == count_params(model, SIZE, VOCAB).total
    assert built(draw(2, LENGTH)[0]).logits.isfinite().all()


@dataclass(frozen=True)
class EvenSpec(RouterSpec):
    """Later recursions are for even positions: a router without weights."""

    def shares(
        self, model: ModelConfig, n_blocks: int, step: int | None = None
    ) -> tuple[float, ...]:
        return (1.0, *(0.5,) * (n_blocks - 1))

    def goes_with(self, recurrence) -> bool:
        return recurrence.routes


class Even(Router):
    def apply(self, net: nn.Module, x: Tensor, forward: Forward) -> Tensor:
        routes = forward.routes
        everyone = routes.everyone
        even = (everyone.positions() % 2 == 0).nonzero().squeeze(1)
        for r in range(routes.n_blocks):
            span = everyone if r == 0 else narrow(everyone, even, causal=True)
            routes.spans.append(span)
            if span.tokens == 0:
                break
            inner = x if r == 0 else x.index_select(0, even)
            out = forward.run(r, inner, span)
            x = out if r == 0 else x.index_copy(0, even, out)
        return x

    def course(self, net: nn.Module, limit: int | None) -> Course:
        return EvenCourse(within(limit, len(self.layout.recursions)))


class EvenCourse(Course):
    def decide(self, r: int, tokens: Tokens) -> Tensor | None:
        return None if r == 0 else tokens.positions() % 2 == 0


class WithoutCourse(Even):
    course = Router.course


def test_a_router_is_a_spec_and_a_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ROUTERS, "even", EvenSpec("even", f"{__name__}:Even", routes=True))
    model = recursive(architecture="mor", router=RouterConfig("even"))
    check_model(model, SIZE)
    built, tokens = build(model), draw(2, LENGTH)[0]
    whole = built(tokens, routing="causal")
    assert planned_routing(model, SIZE, LENGTH, 2).tokens == tuple(whole.routed.tokens)
    decoder = Decoder(built, 2)
    for position in range(LENGTH):
        logits = decoder.step(tokens[:, position]).logits
        torch.testing.assert_close(logits[:, 0], whole.logits[:, position], atol=1e-4, rtol=1e-4)
    [done] = Engine(built, SETTINGS).generate([tokens[0].tolist()], Sampling(max_new=5))
    assert done.tokens == decoded(built, tokens[:1], n_new=5)[0, LENGTH:].tolist()
    assert done.depths[:LENGTH] == whole.routed.depths[0].tolist()


def test_a_router_without_scores_is_inspected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ROUTERS, "even", EvenSpec("even", f"{__name__}:Even", routes=True))
    built = build(recursive(architecture="mor", router=RouterConfig("even")))
    rows = text_of(draw(1, 4 * LENGTH + 1)[0][0].numpy())
    found = final_validation(built, rows.batches, rows.tokens, torch.autocast("cpu", enabled=False))
    assert found.routing is not None
    assert not found.routing.has_scores
    depths = depths_of(built, rows.batches, torch.autocast("cpu", enabled=False))
    inspected = Inspection("own", rows, {}, (Measured("final", 1, found),), depths, 3)
    said = "\n".join(lines_of(inspected))
    assert "router scores      none" in said
    assert "top-k" not in said


def text_of(tokens: np.ndarray) -> Text:
    corpus = _corpus(Path(), tokens, "some text", ByteTokenizer())
    return Text("own", Batches(corpus, LENGTH, 1, 0), len(tokens) - 1, 0)


def test_a_router_without_a_course_is_told_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ROUTERS, "even", EvenSpec("even", f"{__name__}:WithoutCourse", routes=True))
    built = build(recursive(architecture="mor", router=RouterConfig("even")))
    with pytest.raises(UserError, match=r"model\.router\.type=even: WithoutCourse .*course\(\)"):
        Engine(built, SETTINGS)

"""Tokens in front of several blocks at once meet what they meet one block after the other."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from mor.inference import Engine, Settings
from mor.model.routers.course import Course, Tokens
from tests.mor.inference.test_engine import KINDS
from tests.mor.model.variants import SIZE, build, expert

EACH = 3  # tokens in front of each block


def tokens(n: int, of: torch.Generator) -> Tokens:
    x, first = (torch.randn(n, SIZE.d_model, generator=of) for _ in range(2))
    return Tokens(x, first, torch.rand(n, 2, generator=of), torch.arange(n))


CASES = {**KINDS, "expert-all": expert(capacity=(1.0, 1.0, 1.0))}


@pytest.mark.parametrize("name", CASES)
def test_several_blocks_at_once_are_each_of_them(name: str) -> None:
    course = Engine(build(CASES[name], seed=1), Settings(context=32)).course
    groups = [(r, slice(EACH * r, EACH * (r + 1))) for r in range(course.n_blocks)]
    one = tokens(EACH * course.n_blocks, torch.Generator().manual_seed(3))
    f = torch.randn(one.x.shape, generator=torch.Generator().manual_seed(4))
    other = dataclasses.replace(one, notes=one.notes.clone())
    with torch.inference_mode():
        at_once = course.decide_each(groups, one)
        apart = Course.decide_each(course, groups, other)
        if at_once is None or apart is None:
            assert at_once is apart
        else:
            assert at_once.tolist() == apart.tolist()
        torch.testing.assert_close(one.notes, other.notes)
        for form in ("enter_each", "leave_each"):
            given = (groups, one) if form == "enter_each" else (groups, one, f)
            theirs = getattr(Course, form)(course, *given)
            torch.testing.assert_close(getattr(course, form)(*given), theirs)

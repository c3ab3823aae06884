"""What is said at the end of a launch, by how its runs ended."""

from __future__ import annotations

import pytest

from sweeps.backends.base import LaunchFailed
from sweeps.ending import AGAIN, Outcome

CASES = {
    # failed, diverged, left: what is named, what is not
    (2, 0, 0): (["2 runs failed", "fix the cause", AGAIN], ["diverged", "did not end"]),
    (0, 1, 0): (["1 run diverged", "--diverged"], ["failed", "fix the cause", AGAIN]),
    (0, 0, 4): (["4 runs did not end", AGAIN], ["failed", "fix the cause", "diverged"]),
    (1, 1, 1): (["1 run failed", "1 run diverged", "1 run did not end", AGAIN, "--diverged"], []),
}


@pytest.mark.parametrize("ends", CASES)
def test_only_what_happened_is_named_and_advised(ends):
    named, unnamed = CASES[ends]
    with pytest.raises(LaunchFailed) as refused:
        Outcome(3, *ends).refuse("mine")
    said = str(refused.value)
    assert all(part in said for part in named)
    assert not any(part in said for part in unnamed)
    assert said.count(AGAIN) <= 1


def test_results_name_their_pages_and_none_names_none():
    assert Outcome(0, 1, 0, 0).pages("studies/x") == []
    assert len(Outcome(1, 0, 0, 0).pages("studies/x")) == 1
    assert len(Outcome(1, 0, 0, 0, labelled=True).pages("studies/x")) == 2
    Outcome(1, 0, 0, 0).refuse("mine")

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from analysis.formatting import compute, count, listing, plural, typed


@pytest.mark.parametrize(
    ("value", "text"), [(2e18, "2e18"), (16.5e18, "1.65e19"), (1e10, "1e10"), (1.25e16, "1.25e16")]
)
def test_compute(value, text):
    assert compute(value) == text
    assert float(text) == value


@given(st.floats(min_value=1e-300, allow_infinity=False))
@example(2e18)
@example(1.23456e18)
def test_what_is_typed_is_the_very_number(value):
    assert float(typed(value)) == value
    assert len(typed(value)) <= len(repr(value)) + 3
    assert typed(2e18) == "2e18"


@pytest.mark.parametrize(
    ("value", "text"),
    [(42e6, "42M"), (1.61e9, "1.61B"), (950, "950"), (999_999, "1M"), (23_456, "23.5K")],
)
def test_count(value, text):
    assert count(value) == text


def test_listing_and_plural():
    assert listing("abc") == "a, b, c"
    assert listing("abcdefg", most=3) == "a, b, c and 4 more"
    assert plural(1, "run") == "1 run"
    assert plural(0, "run") == "0 runs"

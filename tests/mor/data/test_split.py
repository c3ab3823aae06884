import pytest

from mor.data.split import Split, share


def test_shares_are_even() -> None:
    shares = [share(f"document {i}") for i in range(4000)]
    assert min(shares) >= 0
    assert max(shares) < 1
    assert sum(value < 0.05 for value in shares) / len(shares) == pytest.approx(0.05, abs=0.012)


@pytest.mark.parametrize("val_fraction", [1e-9, 1 - 1e-9])
def test_the_fraction_that_would_have_worked(val_fraction: float) -> None:
    texts = [f"document {i}" for i in range(5)]
    split = Split(val_fraction)
    assert len({split.holds_out(text) for text in texts}) == 1
    fraction = split.working_fraction()
    assert fraction is not None
    assert {Split(fraction).holds_out(text) for text in texts} == {True, False}


def test_one_document_cannot_be_split() -> None:
    split = Split(0.5)
    split.holds_out("alone")
    split.holds_out("alone")
    assert split.working_fraction() is None

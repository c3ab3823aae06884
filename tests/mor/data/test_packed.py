from pathlib import Path

import numpy as np
import pytest

from mor.data.packed import DamagedCorpus, open_corpus, token_dtype


@pytest.mark.parametrize(
    ("vocab_size", "dtype"),
    [(2, "u1"), (256, "u1"), (257, "<u2"), (49152, "<u2"), (65536, "<u2"), (65537, "<u4")],
)
def test_the_smallest_type_that_holds_every_token(vocab_size: int, dtype: str) -> None:
    assert token_dtype(vocab_size) == np.dtype(dtype)


def test_no_folder_and_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_corpus(tmp_path / "gone")
    with pytest.raises(DamagedCorpus, match=r"meta\.json"):
        open_corpus(tmp_path)

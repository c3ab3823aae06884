"""A JSON list read entry by entry is the list that `json` reads as a whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mor.config import ConfigError, DataConfig
from mor.data.corpus import documents
from mor.data.json_list import entries

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def in_parts(text: str, size: int) -> list[str]:
    return [text[i : i + size] for i in range(0, len(text), size)]


def outcome(read) -> list | str:
    try:
        return read()
    except ValueError:
        return "refused"


@settings(max_examples=200, deadline=None)
@given(
    values=st.lists(JSON, max_size=6),
    indent=st.sampled_from([None, 1]),
    size=st.integers(1, 9),
    harm=st.none() | st.tuples(st.integers(0, 99), st.sampled_from(["", ",", "]", "[", "x", " 1"])),
)
@example(values=[12, 34], indent=None, size=2, harm=None)
@example(values=[1], indent=None, size=9, harm=(99, "]"))
@example(values=[1], indent=None, size=9, harm=(2, ","))
def test_entries_are_those_of_the_whole(values: list, indent, size: int, harm) -> None:
    text = json.dumps(values, indent=indent) + "\n"
    if harm is not None:
        place = min(harm[0], len(text))
        text = text[:place] + harm[1] + text[place + (not harm[1]) :]
    expected = outcome(lambda: json.loads(text))
    found = outcome(lambda: list(entries(in_parts(text, size))))
    assert found == (expected if isinstance(expected, list) else "refused")


def read(path: Path, content: bytes, **options: object) -> tuple[list[str], dict[str, int], int]:
    path.write_bytes(content)
    data = DataConfig(kind="files", paths=(str(path),), cache_dir=str(path.parent), **options)  # type: ignore[arg-type]
    found = documents(data)
    return list(found.texts), dict(found.tally.skipped), found.tally.rows


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_a_long_list_has_the_rows_of_a_short_one(
    tmp_path: Path, monkeypatch, encoding: str, start: bytes
) -> None:
    rows = [{"text": f"text {i} größer"} for i in range(300)]
    text = json.dumps([*rows, 3, {"text": None}], ensure_ascii=False, indent=1)
    content = (start if encoding == "utf-8" else b"") + text.encode(encoding)
    path = tmp_path / "a.json"
    whole = read(path, content, encoding=encoding)
    odd = read(path, content + b"\xff")
    monkeypatch.setattr("mor.data.rows.LONGEST_OBJECT", 100)
    monkeypatch.setattr("mor.data.texts.PART", 7)
    assert read(path, content, encoding=encoding) == whole
    assert len(whole[0]) == 300
    assert read(path, content + b"\xff") == odd == ([], {"not in data.encoding": 1}, 1)


@pytest.mark.parametrize("content", [b'[{"text": "one"}, {"te', b'{\n "text": "one"\n}'])
def test_what_is_no_list_is_refused(tmp_path: Path, monkeypatch, content: bytes) -> None:
    monkeypatch.setattr("mor.data.rows.LONGEST_OBJECT", 10)
    with pytest.raises(ConfigError) as caught:
        read(tmp_path / "a.json", content)
    assert caught.value.setting == "data.paths"

"""Rows that hold no text, in the forms that users have sent: counted or refused, never guessed."""

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mor.config import ConfigError, DataConfig
from mor.data.corpus import documents
from mor.data.opening import Source
from mor.data.pieces import pieces_of
from mor.data.rows import Piece, read_texts
from mor.data.tally import Tally

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": lambda content: gzip.compress(content, mtime=0),
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda content: zstd(content[: len(content) // 2]) + zstd(content[len(content) // 2 :]),
}


def zstd(content: bytes) -> bytes:
    return pa.Codec("zstd").compress(content, asbytes=True)


def lines(*values: object) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


def read(path: Path, content: bytes, **options: object) -> tuple[list[str], Tally]:
    path.write_bytes(content)
    data = DataConfig(kind="files", paths=(str(path),), cache_dir=str(path.parent), **options)  # type: ignore[arg-type]
    found = documents(data)
    return list(found.texts), found.tally


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "cp500"])
def test_json_in_an_encoding_of_other_line_ends_is_refused(tmp_path: Path, encoding: str) -> None:
    content = "".join(json.dumps({"text": f"row {i}"}) + "\n" for i in range(40)).encode(encoding)
    with pytest.raises(ConfigError) as refused:
        read(tmp_path / "a.jsonl", content, encoding=encoding)
    assert refused.value.setting == "data.encoding"


def test_a_json_list_is_read_in_an_encoding_of_other_line_ends(tmp_path: Path) -> None:
    content = json.dumps([{"text": "a"}, {"text": "b"}], indent=1).encode("utf-16-le")
    texts, _ = read(tmp_path / "a.json", content, encoding="utf-16-le")
    assert texts == ["a", "b"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1251", "latin-1", "shift_jis"])
def test_json_is_read_where_lines_end_as_in_ascii(tmp_path: Path, encoding: str) -> None:
    texts, _ = read(tmp_path / "a.jsonl", lines({"text": "a"}, {"text": "b"}), encoding=encoding)
    assert texts == ["a", "b"]


@pytest.mark.parametrize("odd", [3, 3.5, True, {"a": 1}, ["x"], None])
def test_one_odd_row_leaves_the_others_as_they_are(tmp_path: Path, odd: object) -> None:
    content = lines({"text": "one"}, {"text": odd}, {"text": '{"text": 1}'}, {"text": "7"})
    texts, tally = read(tmp_path / "a.jsonl", content)
    assert texts == ["one", '{"text": 1}', "7"]
    assert dict(tally.skipped) == {"null" if odd is None else type(odd).__name__: 1}
    assert next(iter(tally.places.values())).endswith("a.jsonl, line 2")
    with pytest.raises(ConfigError) as caught:
        read(tmp_path / "a.jsonl", content, on_bad_row="stop")
    assert caught.value.setting == "data.on_bad_row"


@pytest.mark.parametrize("cut", [b'{"text": "tw', b"two", b"{}}", b"[" * 100_000])
def test_a_line_that_is_not_json_is_a_bad_row(tmp_path: Path, cut: bytes) -> None:
    content = lines({"text": "one"}) + cut + b"\n" + lines({"text": "three"})
    texts, tally = read(tmp_path / "a.jsonl", content)
    assert texts == ["one", "three"]
    assert dict(tally.skipped) == {"not JSON": 1}
    assert tally.rows == 3
    assert tally.places["not JSON"].endswith("line 2")
    with pytest.raises(ConfigError) as caught:
        read(tmp_path / "a.jsonl", content, on_bad_row="stop")
    assert caught.value.setting == "data.on_bad_row"


def test_lines_of_which_none_is_json_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="line 1") as caught:
        read(tmp_path / "a.jsonl", b"one\ntwo\n")
    assert caught.value.setting == "data.paths"
    with pytest.raises(ConfigError, match="the file"):  # a list is parsed as a whole
        read(tmp_path / "a.json", b'[{"text": "one"}, {"te')


def test_other_columns_may_change_their_type(tmp_path: Path) -> None:
    rows = [{"text": "a", "meta": None}, {"text": "b", "meta": {"x": 1}}, {"text": "c", "new": 2}]
    texts, tally = read(tmp_path / "a.jsonl", lines(*rows))
    assert texts == ["a", "b", "c"]
    assert not tally.skipped


def test_rows_without_the_column_are_counted(tmp_path: Path) -> None:
    rows = [{"text": f"t{i}"} if i % 2 else {"body": "x"} for i in range(10)]
    texts, tally = read(tmp_path / "a.jsonl", lines(*rows))
    assert len(texts) == 5
    assert dict(tally.skipped) == {"without data.text_field": 5}
    assert tally.rows == 10


def test_encodings(tmp_path: Path) -> None:
    content = '{"text": "plain"}\n{"text": "größer"}\n'.encode("latin-1")
    texts, tally = read(tmp_path / "a.jsonl", content)
    assert texts == ["plain"]
    assert tally.skipped.total() == 1
    assert "data.encoding" in tally.report()
    texts, tally = read(tmp_path / "a.jsonl", content, encoding="latin-1")
    assert texts == ["plain", "größer"]
    russian = "Привет, мир! Это текст."
    with pytest.raises(ConfigError) as caught:
        read(tmp_path / "a.txt", russian.encode("cp1251"))
    assert caught.value.setting == "data.encoding"
    assert "cp1251" in str(caught.value)
    assert read(tmp_path / "a.txt", russian.encode("cp1251"), encoding="cp1251")[0] == [russian]
    kept = "a" * 10_000 + "\ufffd"  # a replacement character that the text itself spells
    assert read(tmp_path / "b.txt", kept.encode())[0] == [kept]


@settings(max_examples=100, deadline=None)
@given(
    parts=st.lists(
        st.sampled_from(["words ", "größer ", "\ufffd", "データ", b"\xff", b"\xe3\x83"])
    ),
)
def test_what_a_text_file_loses_is_counted(
    tmp_path_factory: pytest.TempPathFactory, parts: list[str | bytes]
) -> None:
    start = "much text " * 5_000
    parts = [start, *parts, "."]
    content = b"".join(part if isinstance(part, bytes) else part.encode() for part in parts)
    lost = sum(isinstance(part, bytes) for part in parts)
    path = tmp_path_factory.mktemp("rows") / "a.txt"
    texts, tally = read(path, content)
    assert texts == [content.decode(errors="replace")]
    assert (tally.rows, tally.replaced, tally.is_bad) == (1, lost, lost > 0)
    assert bool(tally.report()) == (lost > 0)
    assert not lost or str(path) in tally.report()
    assert not tally.skipped
    if lost:
        with pytest.raises(ConfigError) as caught:
            read(path, content, on_bad_row="stop")
        assert caught.value.setting == "data.on_bad_row"


def test_lone_surrogates_are_counted(tmp_path: Path) -> None:
    content = b'{"text": "ok \\ud83d\\ude00"}\n{"text": "bad \\ud83d"}\n'
    texts, tally = read(tmp_path / "a.jsonl", content)
    assert texts == ["ok 😀"]
    assert dict(tally.skipped) == {"with lone surrogates": 1}


def test_invalid_utf8_in_parquet(tmp_path: Path) -> None:
    values = pa.array([b"one", b"\xff\xfe", None, b"two"], pa.binary())
    column = pa.Array.from_buffers(pa.string(), 4, values.buffers())
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    texts, tally = read(tmp_path / "a.parquet", (tmp_path / "a.parquet").read_bytes())
    assert texts == ["one", "two"]
    assert dict(tally.skipped) == {"not in data.encoding": 1, "null": 1}


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("name", ["a.jsonl", "a.txt"])
def test_compressed(tmp_path: Path, name: str, compression: str) -> None:
    rows = [f"text {i}: größer" for i in range(200)]
    content = lines(*({"text": row} for row in rows)) if name == "a.jsonl" else rows[0].encode()
    texts, _ = read(tmp_path / f"{name}{compression}", COMPRESS[compression](content))
    assert texts == (rows if name == "a.jsonl" else rows[:1])


@pytest.mark.parametrize("compression", [c for c in COMPRESS if c])
def test_a_torn_archive_is_refused(tmp_path: Path, compression: str) -> None:
    whole = COMPRESS[compression](lines(*({"text": f"text {i * i}"} for i in range(5000))))
    with pytest.raises(ConfigError, match="cannot be read as json"):
        read(tmp_path / f"a.jsonl{compression}", whole[: len(whole) // 3])


def test_forms_of_json(tmp_path: Path) -> None:
    assert read(tmp_path / "a.json", b'\xef\xbb\xbf{"text": "bom"}\n')[0] == ["bom"]
    assert read(tmp_path / "a.json", b'{\n "text": "wide"\n}\n')[0] == ["wide"]
    assert read(tmp_path / "a.json", b' [\n{"text": "x"}, 3]')[0] == ["x"]
    assert read(tmp_path / "a.jsonl", b'{"text": "crlf"}\r\n\r\n{"text": "last"}')[0] == [
        "crlf",
        "last",
    ]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=100, deadline=None)
@given(values=st.lists(JSON, min_size=1, max_size=20))
def test_every_row_is_a_document_or_counted(
    tmp_path_factory: pytest.TempPathFactory, values: list
) -> None:
    rows = [{"text": "first"}, *({"text": value} for value in values), *values]
    texts, tally = read(tmp_path_factory.mktemp("rows") / "a.jsonl", lines(*rows))
    inner = [v["text"] for v in values if isinstance(v, dict) and "text" in v]
    expected = ["first", *values, *inner]
    assert texts == [value for value in expected if isinstance(value, str) and value]
    assert tally.rows == len(rows)
    assert len(texts) + tally.skipped.total() == tally.rows


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_pieces_hold_each_row_once(tmp_path: Path, form: str, monkeypatch) -> None:
    monkeypatch.setattr("mor.data.pieces.MB", 1000)
    texts = [f"{i} " + "x" * (i * 37 % 300) for i in range(300)]
    path = tmp_path / f"a.{form}"
    if form == "jsonl":
        path.write_bytes(lines(*({"text": text} for text in texts)))
    else:
        pq.write_table(pa.table({"text": texts}), path, row_group_size=7)
    data = DataConfig(kind="files", shard_mb=2)
    source = Source(str(path), "json" if form == "jsonl" else "parquet")
    pieces = pieces_of(source, data)
    assert len(pieces) > 5
    found = [list(read_texts(source, data, Tally(), piece)) for piece in pieces]
    assert [text for part in found for text in part] == texts
    assert all(found)
    assert list(read_texts(source, data, Tally(), Piece())) == texts

"""The hub's own clients against a small hub on this machine, and against none at all."""

from __future__ import annotations

import io
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mor.config import DataConfig, to_dict
from mor.data.tokenizer import make_tokenizer

COMMIT = "3ba9d605774198c5868892d7a8deda78031a781f"
README = """---
configs:
- config_name: fineweb-edu-dedup
  data_files:
  - split: train
    path: fineweb-edu-dedup/train-*
- config_name: other
  data_files:
  - split: train
    path: other/train-*
---
"""
CONVERTED = {
    "default/train/0000.parquet": [f"row {i} of the first" for i in range(60)],
    "default/test/0000.parquet": ["of the test"],
    "second/train/0000.parquet": [f"row {i} of the second" for i in range(50)],
}
Files = dict[str, dict[str, bytes]]  # repository -> path -> content


class SmallHub(BaseHTTPRequestHandler):
    """Enough of the hub's interface to stream a dataset and download a file."""

    files: Files

    def log_message(self, *words: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/":
            return self.answer(200, b"")
        about = re.fullmatch(r"/api/(?:datasets|models)/(o/\w+)(/.*)?", path)
        if about:
            return self.describe(about[1], about[2] or "")
        wanted = re.fullmatch(r"/(?:datasets/)?(o/\w+)/resolve/[^/]+/(.*)", path)
        content = self.files.get(wanted[1], {}).get(wanted[2]) if wanted else None
        if content is None:
            return self.answer(404, b"", {"X-Error-Code": "EntryNotFound"})
        marks = {"ETag": f'"{len(content)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if span is None:
            return self.answer(200, content, marks)
        first, last = int(span[1]), min(int(span[2] or len(content)), len(content) - 1)
        marks["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        return self.answer(206, content[first : last + 1], marks)

    def describe(self, repository: str, question: str) -> None:
        if repository not in self.files:
            return self.answer(404, b"", {"X-Error-Code": "RepoNotFound"})
        files = self.files[repository]
        if question.startswith("/tree"):
            below = unquote(question.split("/", 3)[3]) + "/" if question.count("/") > 2 else ""
            found: dict[str, dict[str, object]] = {}
            for path, content in files.items():
                inside = path.removeprefix(below)
                if below and inside == path:
                    continue
                names = inside.split("/")
                deep = len(names) if "recursive=true" in self.path else 1
                for depth in range(1, min(deep, len(names) - 1) + 1):
                    folder = below + "/".join(names[:depth])
                    found[folder] = {"type": "directory", "oid": "0" * 40, "size": 0}
                if len(names) <= deep:
                    found[path] = {"type": "file", "oid": "0" * 40, "size": len(content)}
            if not found:
                return self.answer(404, b"{}", {"X-Error-Code": "EntryNotFound"})
            listed = [{**facts, "path": path} for path, facts in found.items()]
            return self.answer(200, json.dumps(listed).encode())
        if question.startswith("/paths-info"):
            known = [
                {"type": "file", "oid": "0" * 40, "size": len(content), "path": path,
                 "lfs": {"size": len(content), "oid": sha256(content).hexdigest(),
                         "pointerSize": 130}}
                for path, content in files.items()
            ]  # fmt: skip
            return self.answer(200, json.dumps(known).encode())
        facts = {
            "id": repository,
            "sha": COMMIT,
            "private": False,
            "gated": False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "siblings": [{"rfilename": path} for path in files],
        }
        return self.answer(200, json.dumps(facts).encode())

    def answer(self, status: int, content: bytes, marks: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (marks or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@pytest.fixture
def hub(tmp_path: Path, texts: list[str]) -> Iterator[str]:
    """The address of a hub with a corpus o/corpus of two shards and a tokenizer o/tokenizer."""
    repository = {"README.md": README.encode(), "other/train-0.parquet": shard(["x"])}
    for i, part in enumerate((texts[:25], texts[25:])):
        repository[f"fineweb-edu-dedup/train-0000{i}-of-00002.parquet"] = shard(part)
    (tmp_path / "trained").mkdir()
    train = DataConfig(tokenizer="train", vocab_size=300)
    make_tokenizer(train, lambda: texts, tmp_path / "trained", progress=False)
    tokenizer = {"tokenizer.json": (tmp_path / "trained" / "tokenizer.json").read_bytes()}
    table = {path: shard(rows) for path, rows in CONVERTED.items()}
    files: Files = {"o/corpus": repository, "o/tokenizer": tokenizer, "o/table": table}
    files["o/csv"] = {"train.csv": b"text\none\n"}
    handler = type("Hub", (SmallHub,), {"files": files})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def shard(texts: list[str]) -> bytes:
    content = io.BytesIO()
    columns = {
        "text": texts,
        "id": [f"<urn:uuid:{i}>" for i in range(len(texts))],
        "metadata": [{"dump": "CC-MAIN-2024-10", "score": 3.5}] * len(texts),
    }
    pq.write_table(pa.table(columns), content, row_group_size=10)
    return content.getvalue()


def prepare_with(
    endpoint: str, tmp_path: Path, *, offline: bool = False, **settings: object
) -> str:
    """What `prepare` says in a process that knows the hub by `endpoint`."""
    values = {
        "name": "hub",
        "kind": "hub",
        "dataset": "o/corpus",
        "subset": "fineweb-edu-dedup",
        "revision": COMMIT,
        "val_fraction": 0.2,
        "cache_dir": str(tmp_path / "cache"),
    }
    data = DataConfig(**{**values, **settings})  # type: ignore[arg-type]
    code = (
        "import json; from mor.config import *; from mor.data.prepare import prepare\n"
        "try:\n"
        f"    corpus = prepare(from_dict(DataConfig, {to_dict(data)!r}), progress=False)\n"
        "    texts = [corpus.tokenizer().decode(s[:]) for s in (corpus.train, corpus.val)]\n"
        "    about = corpus.meta.train_documents, corpus.complete\n"
        "    print(json.dumps([str(corpus.folder), *texts, *about]))\n"
        "except UserError as error: print(error)"
    )
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_OFFLINE": str(int(offline)),
        "HF_HUB_DISABLE_XET": "1",
        "NO_PROXY": "127.0.0.1",
    }
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=100
    )
    assert run.returncode == 0, run.stderr
    said = run.stdout.rstrip("\n")
    assert "\n" not in said
    return said


def test_a_dataset_and_a_tokenizer_from_the_hub(hub: str, tmp_path: Path, texts: list) -> None:
    said = prepare_with(hub, tmp_path, tokenizer="o/tokenizer", vocab_size=300)
    _, train, held, train_documents, complete = json.loads(said)
    assert complete
    assert len(train) + len(held) == len("".join(texts))
    assert all((text in train) != (text in held) for text in texts)
    assert train_documents == sum(text in train for text in texts)


def test_a_copy_of_another_commit_is_refused(hub: str, tmp_path: Path, texts: list) -> None:
    mirror = tmp_path / "mirror" / "fineweb-edu-dedup"
    mirror.mkdir(parents=True)
    (mirror.parent / "README.md").write_text(README)
    for i, part in enumerate((texts[:25], texts[25:])):
        (mirror / f"train-0000{i}-of-00002.parquet").write_bytes(shard(part))
    more = {"window_tokens": 1000, "mirror": str(mirror.parent), "tokens": 1e6}
    said = prepare_with(hub, tmp_path, window_tokens=1000, tokens=1000.0)
    assert not json.loads(said)[-1]
    names = [path.name for path in mirror.iterdir()]
    contents = {name: (mirror / name).read_bytes() for name in names}
    for name in names:
        (mirror / name).write_bytes(contents[name].replace(b"token", b"tokem"))
    assert prepare_with(hub, tmp_path, **more).startswith(f"data.mirror={mirror.parent}: ")
    for name in names:
        (mirror / name).write_bytes(contents[name])
    assert json.loads(prepare_with(hub, tmp_path, **more))[-1]


@pytest.mark.parametrize("subset", ["default", "second"])
def test_the_parquet_files_that_the_hub_makes_of_a_dataset(
    hub: str, tmp_path: Path, subset: str
) -> None:
    """A folder for each configuration, of which the asked one is read."""
    settings = {"dataset": "o/table", "subset": subset, "revision": "refs/convert/parquet"}
    _, train, held, *_ = json.loads(prepare_with(hub, tmp_path, **settings))
    texts = CONVERTED[f"{subset}/train/0000.parquet"]
    assert len(train + held) == len("".join(texts))
    assert all(text in train or text in held for text in texts)


@pytest.mark.parametrize("name", ["train.csv", "train.tsv.gz", "data/train-0.arrow"])
def test_what_is_no_parquet_is_refused_with_what_is(hub: str, tmp_path: Path, name: str) -> None:
    """A copy of the branch that the refusal names is read."""
    mirror = tmp_path / "mirror"
    (mirror / name).parent.mkdir(parents=True)
    (mirror / name).write_bytes(b"text\none\n")
    settings = {"dataset": "o/table", "subset": None, "mirror": str(mirror)}
    said = prepare_with(hub, tmp_path, **settings)
    assert said.startswith(f"data.mirror={mirror}: ")
    if not name.endswith("arrow"):  # others are found by `datasets` itself
        assert f" {name} is neither parquet" in said
        assert "--revision refs/convert/parquet" in said
    if name == "train.csv":
        assert "type data.revision=refs/convert/parquet" in prepare_with(
            hub, tmp_path, dataset="o/csv", subset=None
        )
    (mirror / name).unlink()
    for path, texts in CONVERTED.items():
        (mirror / path).parent.mkdir(parents=True, exist_ok=True)
        (mirror / path).write_bytes(shard(texts))
    _, train, held, *_ = json.loads(prepare_with(hub, tmp_path, **settings, name="copy"))
    assert "row 7" in train + held


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"dataset": "o/gone"}, r"data.dataset=o/gone .*cannot be read from the hub"),
        ({"subset": "gone"}, r"data.dataset=o/corpus \(data.subset=gone.*fineweb-edu-dedup"),
        ({"text_field": "body"}, r"data.text_field=body: .*type data.text_field=<one of text, id"),
        ({"tokenizer": "o/gone", "vocab_size": 300}, r"data.tokenizer=o/gone: no tokenizer.json"),
    ],
)
def test_names_that_the_hub_does_not_know(
    hub: str, tmp_path: Path, settings: dict, words: str
) -> None:
    said = prepare_with(hub, tmp_path, **settings)
    assert re.search(words, said), said
    assert not list(tmp_path.glob("cache/*hub-*/"))


def test_a_hub_that_never_answers_is_given_up(tmp_path: Path) -> None:
    with socket.socket() as silent:  # takes calls and never answers
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        said = prepare_with(endpoint, tmp_path)
    assert "cannot be reached" in said
    assert "type data=stdlib or data=files" in said


def test_offline_asks_nobody(tmp_path: Path) -> None:
    said = prepare_with("http://127.0.0.1:1", tmp_path, offline=True)
    assert "type data=stdlib or data=files" in said
    said = prepare_with(
        "http://127.0.0.1:1", tmp_path, offline=True, tokenizer="o/tokenizer", vocab_size=300
    )
    assert "HF_HUB_OFFLINE is set" in said

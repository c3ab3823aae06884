import json
import os
import time
from pathlib import Path

from mor.data.digests import file_digests


def aged(path: Path, seconds: float = 60) -> Path:
    then = time.time() - seconds
    os.utime(path, (then, then))
    return path


def test_a_changed_file_has_another_digest(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("one")
    (before,) = file_digests([path], tmp_path)
    path.write_text("two")  # same size, perhaps the same tick of the clock
    (after,) = file_digests([path], tmp_path)
    assert before != after


def test_settled_files_are_remembered(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("one")
    aged(path)
    (before,) = file_digests([path], tmp_path)
    stat = path.stat()
    path.write_text("two")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert file_digests([path], tmp_path) == [before], "the file was read again"
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_spoilt_memory_is_done_without(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("one")
    aged(path)
    expected = file_digests([path], tmp_path)
    for spoilt in ("{", "[]", json.dumps({str(path): 3}), json.dumps({str(path): ["x", 1, 2]})):
        (tmp_path / "digests.json").write_text(spoilt)
        assert file_digests([path], tmp_path) == expected
    assert file_digests([path], tmp_path / "a" / "no folder") == expected

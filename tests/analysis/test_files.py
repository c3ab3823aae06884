import os

import pytest

from analysis.errors import AnalysisError
from analysis.files import make_folder, write_whole


def test_a_file_is_replaced_whole_and_readable_by_others(tmp_path):
    path = tmp_path / "page.html"
    write_whole(path, "old")
    write_whole(path, b"new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_failed_write_keeps_the_old_file_and_no_rubbish(tmp_path, monkeypatch):
    path = tmp_path / "page.html"
    write_whole(path, "old")

    def fail(*_):
        raise OSError("disk")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk"):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_in_a_file_is_refused_in_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(AnalysisError, match="--out"):
        make_folder(tmp_path / "file" / "folder")

import pytest

from mor.data import progress


def test_a_log_gets_lines_with_the_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    clock = iter([0.0, 10.0, 30.0, 60.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress.reporting("preparing mine", shown=True) as report:
        report(0.1, 100)
        report(0.25, 3000)
        report(None, 12000)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "preparing mine: 3,000 tokens, 100 tokens/s, 25%, 2 min left",
        "preparing mine: 12,000 tokens, 200 tokens/s",
    ]


def test_silence(capsys: pytest.CaptureFixture) -> None:
    with progress.reporting("preparing mine", shown=False) as report:
        report(0.5, 1)
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True)
    with progress.reporting("preparing mine", shown=True) as report:
        report(None, 10)
        report(0.5, 1000)
    assert "1,000 tokens" in capsys.readouterr().err

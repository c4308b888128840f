"""`lumbung torture`: what it takes. That it finds what is broken is tests/torture's to show."""

from __future__ import annotations

from pathlib import Path

import pytest

from lumbung.cli import torture
from lumbung.cli.torture import Plan
from lumbung.errors import ConfigurationError, UsageError


def test_a_name_that_is_unknown_is_told_before_anything_is_started(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--nemesis knows no 'klil'"):
        torture.torture(seconds=5, nemesis_names="klil", keep=tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


def test_a_directory_with_something_in_it_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("keep me")
    with (
        pytest.raises(ConfigurationError, match="is not empty: name a new directory for --keep"),
        torture.directory_for(tmp_path),
    ):
        pass
    assert (tmp_path / "mine").read_text() == "keep me"


def test_a_directory_of_our_own_is_gone_afterwards() -> None:
    with torture.directory_for(None) as directory:
        assert directory.is_dir()
    assert not directory.exists()


def test_only_linux_has_a_loopback_address_for_each_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(ConfigurationError, match="needs Linux"):
        torture.run(Plan(5, 1, ()), tmp_path)


def test_a_clock_that_cannot_be_moved_is_left_alone_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lumbung.torture.fake_time.library", lambda: None)
    assert torture._clock(Plan(5, 1, ("clock",)), tmp_path) == (None, {})
    assert capsys.readouterr().err == "the clock is left alone: libfaketime is not installed\n"
    assert torture._clock(Plan(5, 1, ("kill",)), tmp_path) == (None, {})
    assert capsys.readouterr().err == ""


def test_a_fifth_of_a_run_is_calm_and_all_of_it_in_peace() -> None:
    assert (Plan(60, 1, ("kill",)).lengths.calm, Plan(60, 1, ("kill",)).lengths.fire) == (12, 48)
    assert (Plan(60, 1, ()).lengths.calm, Plan(60, 1, ()).lengths.fire) == (60, 0)
    assert Plan(1800, 1, ("kill",)).lengths.calm == torture.CALM_SECONDS_MAX


def test_the_database_is_away_for_a_minute_in_a_long_run_and_shorter_in_a_short_one() -> None:
    assert [Plan(seconds, 1, ()).outage_seconds for seconds in (45, 600, 1800)] == [4.5, 60, 60]

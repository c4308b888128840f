"""Every channel's folder is of one pattern, and what it says of itself is so."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from lumbung.channels.base import Channel
from lumbung.channels.registry import CHANNELS
from lumbung.cli.channel import _facts

FILES = {"__init__.py", "README.md", "channel.py", "errors.py", "manifest.py", "quality.toml", "wire.py"}
RULES = {
    "absolute-quantity",
    "one-row-per-push",
    "classified-by-table",
    "never-resends",
    "secrets-redacted",
    "base-url-confined",
    "contract-suite",
    "merchant-readme",
    "reads-back",
    "checks-credentials",
    "batches",
    "refreshes-tokens",
    "locations",
    "seen-live",
}
every_channel = pytest.mark.parametrize("channel", CHANNELS.values(), ids=lambda channel: channel.manifest.code)


def folder(channel: Channel) -> Path:
    file = sys.modules[type(channel).__module__].__file__
    assert file is not None
    return Path(file).parent


def quality(channel: Channel) -> dict[str, Any]:
    read: dict[str, Any] = tomllib.loads((folder(channel) / "quality.toml").read_text(encoding="utf-8"))
    return read


def is_done(channel: Channel, rule: str) -> bool:
    return bool(quality(channel)["rules"][rule] == "done")


@every_channel
def test_a_channels_folder_has_the_files_of_the_pattern(channel: Channel) -> None:
    assert FILES - {path.name for path in folder(channel).iterdir()} == set()


@every_channel
def test_every_rule_of_the_quality_scale_is_done_or_exempt_with_a_reason(channel: Channel) -> None:
    scale = quality(channel)
    assert scale["channel"] == channel.manifest.code
    assert scale["rules"].keys() == RULES
    for rule in scale["rules"].values():
        assert rule == "done" or (rule.keys() == {"status", "reason"} and rule["status"] == "exempt")
        assert rule == "done" or len(rule["reason"]) > 10


@every_channel
def test_what_is_done_is_what_the_manifest_says(channel: Channel) -> None:
    manifest = channel.manifest
    assert is_done(channel, "batches") == (manifest.batch_max > 1)
    assert is_done(channel, "refreshes-tokens") == manifest.authorizes
    assert is_done(channel, "locations") == manifest.location_aware
    assert is_done(channel, "reads-back") == manifest.reads_back


@every_channel
def test_the_merchants_readme_names_every_field_of_the_credentials(channel: Channel) -> None:
    text = (folder(channel) / "README.md").read_text(encoding="utf-8")
    assert [entry.name for entry in channel.manifest.credentials if f"`{entry.name}`" not in text] == []
    assert f"(`{channel.manifest.code}`)" in text.splitlines()[0]


@every_channel
def test_the_contract_suite_is_run(channel: Channel) -> None:
    tests = "\n".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    name = type(channel).__name__
    assert f"channel = {name}()" in tests
    assert "(ChannelContract)" in tests


@every_channel
def test_an_application_has_one_field_that_says_which_it_is(channel: Channel) -> None:
    shared = [entry for entry in channel.manifest.credentials if entry.application]
    assert [entry.required and not entry.secret for entry in shared if entry.identifies] == ([True] if shared else [])
    assert (channel.manifest.application_pacing is not None) == bool(shared)


@every_channel
def test_the_command_that_shows_a_channel_says_all_of_its_manifest(channel: Channel) -> None:
    shown = _facts(channel.manifest)
    assert shown["quantity_means"] in {"sellable", "on_hand"}
    assert None not in {value for name, value in shown.items() if not name.endswith("per_application")}

"""The catalogue of codes and the connectors."""

from __future__ import annotations

from lumbung.channels.catalogue import CATALOGUE
from lumbung.channels.registry import CHANNELS, find

CODES = "shpe bklp blib tkpd lzda zlra tktk jdid elvn zlgo srcl swi shpf wooc mgnt amzn aklk"


def test_every_known_code_is_in_the_catalogue_under_its_own_name() -> None:
    assert list(CATALOGUE) == CODES.split()
    assert all(code == entry.code and entry.name for code, entry in CATALOGUE.items())


def test_a_misspelling_and_a_brand_are_no_codes() -> None:
    assert "shpee" not in CATALOGUE
    assert "levs" not in CATALOGUE


def test_marketplaces_that_have_shut_are_marked() -> None:
    assert [code for code, entry in CATALOGUE.items() if entry.closed] == ["bklp", "tkpd", "jdid", "elvn", "zlgo"]


def test_our_own_codes_are_told_from_those_that_were_seen() -> None:
    ours = [code for code, entry in CATALOGUE.items() if entry.confidence == "I"]
    assert ours == ["shpf", "wooc", "mgnt", "amzn", "aklk"]


def test_only_channels_with_a_connector_are_found() -> None:
    assert set(CHANNELS) == {"blib", "bklp", "shpe"}
    assert all(find(code) is channel and channel.manifest.code == code for code, channel in CHANNELS.items())
    assert find("tkpd") is None
    assert find("") is None


def test_a_connector_and_the_catalogue_agree_on_what_has_shut() -> None:
    assert all(channel.manifest.closed == CATALOGUE[code].closed for code, channel in CHANNELS.items())

"""What marketplaces say is looked through in time that grows with its length alone."""

from __future__ import annotations

import re

import pytest

from lumbung.channels import reservation
from lumbung.channels.blibli import errors as blibli
from lumbung.channels.bukalapak import errors as bukalapak
from lumbung.channels.shopee import errors as shopee


def patterns() -> list[re.Pattern[str]]:
    of_tables = [rule.pattern for rule in shopee.RULES]
    of_tables += [pattern for rule in blibli.WORD_RULES for pattern in (rule.pattern, rule.unless)]
    of_tables += [pattern for rule in bukalapak.WORD_RULES for pattern in (rule.pattern, rule.unless)]
    others = [
        value
        for module in (shopee, blibli, bukalapak, reservation)
        for value in vars(module).values()
        if isinstance(value, re.Pattern)
    ]
    found = [*of_tables, *others, *reservation._LEAST]
    return list({pattern.pattern: pattern for pattern in found if pattern is not None}.values())


def unbounded(pattern: re.Pattern[str]) -> list[str]:
    r"""The repetitions without a bound, but for the lookaheads of \A(?=.*one)(?=.*other), each of which looks through
    the text once, and what has to match the whole text."""
    if pattern in {shopee._CODE, shopee._MODULE}:
        return []
    return re.findall(r"[*+]|\{\d*,\}", pattern.pattern.replace("(?=.*(?:", ""))


@pytest.mark.parametrize("pattern", patterns(), ids=lambda pattern: pattern.pattern[:40])
def test_no_pattern_looks_through_a_text_again_and_again(pattern: re.Pattern[str]) -> None:
    assert unbounded(pattern) == []


def test_the_lookaheads_begin_where_the_text_begins() -> None:
    for pattern in patterns():
        before = [part[-2:] for part in pattern.pattern.split("(?=.*(?:")[:-1]]
        assert all(part in {r"\A", "))"} for part in before), pattern.pattern


def test_every_pattern_was_looked_at() -> None:
    assert len(patterns()) >= 35

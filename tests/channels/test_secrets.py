"""No class of the channels shows a secret by its `repr`: that is what ends up in logs and in reports of errors."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
import re
from collections.abc import Iterator

import msgspec
import pytest

import lumbung.channels
from lumbung.channels.base import CallRecord
from lumbung.channels.call import Answered, Called
from lumbung.channels.redaction import _Spelling
from lumbung.channels.shopee import wire

# By their names; and those whose names are common.
SECRET = re.compile(r"(\A|_)(access|refresh|body|token|password)\Z|_(token|secret|key)\Z")
ALSO = {(wire.GetToken, "code"), (Answered, "text"), (Called, "record"), (_Spelling, "text"), (_Spelling, "word")}
OPEN = {(CallRecord, "request"), (CallRecord, "response")}  # redacted before they come there


def classes() -> Iterator[type]:
    """Every dataclass and struct that a module of the channels defines."""
    for found in pkgutil.walk_packages(lumbung.channels.__path__, "lumbung.channels."):
        module = importlib.import_module(found.name)
        for value in vars(module).values():
            defined = isinstance(value, type) and value.__module__ == found.name
            if defined and (dataclasses.is_dataclass(value) or issubclass(value, msgspec.Struct)):
                yield value


def field_names(kind: type) -> tuple[str, ...]:
    if issubclass(kind, msgspec.Struct):
        return kind.__struct_fields__
    return tuple(field.name for field in dataclasses.fields(kind)) if dataclasses.is_dataclass(kind) else ()


def secrets() -> list[tuple[type, str]]:
    return [
        (kind, name)
        for kind in classes()
        for name in field_names(kind)
        if (SECRET.search(name) or (kind, name) in ALSO) and (kind, name) not in OPEN
    ]


def made(kind: type, name: str) -> object:
    """One whose fields hold nothing, but for the one that is named: it holds a secret of each type that fields have."""
    values = dict.fromkeys(field_names(kind), b"") | {name: b"the secret"}
    if issubclass(kind, msgspec.Struct):
        return kind(**values)
    value = object.__new__(kind)
    for each, given in values.items():
        object.__setattr__(value, each, given)
    return value


@pytest.mark.parametrize(("kind", "name"), secrets(), ids=lambda value: getattr(value, "__qualname__", value))
def test_a_secret_does_not_show_itself(kind: type, name: str) -> None:
    assert "the secret" not in repr(made(kind, name))


def test_the_secrets_are_all_that_the_channels_hold() -> None:
    found = {f"{kind.__module__.removeprefix('lumbung.channels.')}.{kind.__name__}.{name}" for kind, name in secrets()}
    assert found == {
        "base.Tokens.access",
        "base.Tokens.refresh",
        "blibli.channel.Credentials.api_client_key",
        "blibli.channel.Credentials.api_seller_key",
        "blibli.channel.Credentials.signature_key",
        "bukalapak.channel.Credentials.client_secret",
        "bukalapak.tokens.Granted.access_token",
        "bukalapak.tokens.Granted.refresh_token",
        "call.Answered.text",
        "call.Called.body",
        "call.Called.record",
        "http.Answer.body",
        "redaction._Spelling.text",
        "redaction._Spelling.word",
        "shopee.session.Credentials.partner_key",
        "shopee.wire.GetToken.code",
        "shopee.wire.Pair.access_token",
        "shopee.wire.Pair.refresh_token",
        "shopee.wire.RefreshToken.refresh_token",
    }

"""Secrets are found however a server's format spells them."""

from __future__ import annotations

import base64
import functools
import html
import json
import re
from collections.abc import Callable
from urllib.parse import quote, quote_plus, unquote, unquote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumbung.channels.redaction import redact


def test_secrets_are_taken_out_of_a_text_and_short_words_left() -> None:
    assert redact("key=s3cret-key, ok=ok", ("s3cret-key", "ok")) == "key=***, ok=ok"


def slashed(text: str) -> str:
    """As PHP's json_encode writes it."""
    return json.dumps(text).replace("/", r"\/")


def careful(text: str) -> str:
    """As Gson writes it."""
    return re.sub(r"[<>&='+/]", lambda found: f"\\u{ord(found[0]):04x}", json.dumps(text))


JSON: list[Callable[[str], str]] = [json.dumps, slashed, careful, functools.partial(json.dumps, ensure_ascii=False)]
INNER: list[tuple[Callable[[str], str], Callable[[str], str]]] = [
    (str, str),
    (html.escape, html.unescape),
    (functools.partial(quote, safe=""), unquote),
    (quote_plus, unquote_plus),
]
AWKWARD_CHARACTERS = st.sampled_from("aK3u/\\+=\"'&<>%;:?# ~-_.\n\té€\N{GRINNING FACE}")
AWKWARD = st.text(AWKWARD_CHARACTERS, min_size=6, max_size=12)


@given(AWKWARD, AWKWARD, AWKWARD, st.sampled_from(INNER), st.lists(st.sampled_from(JSON), max_size=3))
def test_a_secret_cannot_be_got_back_from_what_json_urls_and_html_make_of_it(
    secret: str,
    before: str,
    after: str,
    inner: tuple[Callable[[str], str], Callable[[str], str]],
    outer: list[Callable[[str], str]],
) -> None:
    secret = f"k{secret}s"  # at its edge a quote or a backslash could as well be that of the text around it
    escape, unescape = inner
    text = escape(before + secret + after)
    for encode in outer:
        text = encode(text)
    text = redact(text, (secret,))
    assert "***" in text
    for _ in outer:
        text = json.loads(text)
    assert secret not in unescape(text)


@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.parametrize("escape", [functools.partial(quote, safe=""), html.escape, slashed])
def test_a_secret_is_found_when_it_was_escaped_again(escape: Callable[[str], str], times: int) -> None:
    text = "a<b&c/d"
    for _ in range(times):
        text = escape(text)
    assert redact(text, ("a<b&c/d",)).strip('\\"') == "***"


@pytest.mark.parametrize("text", [r"\u0073ecret-\u006bey", r"s\\u0065cret-key", "%73ecret-key", "s&#101;cr&#x65;t-key"])
def test_a_secret_whose_letters_are_escaped_is_found(text: str) -> None:
    assert redact(f"key={text}, {text}", ("secret-key",)) == "key=***, ***"


@given(st.text(AWKWARD_CHARACTERS, min_size=6), st.binary(max_size=5), st.binary(max_size=5), st.booleans())
def test_a_secret_within_something_that_was_put_in_base64_is_found(
    secret: str, before: bytes, after: bytes, url_safe: bool
) -> None:
    encode = base64.urlsafe_b64encode if url_safe else base64.b64encode
    encoded = encode(before + secret.encode() + after).decode()
    kept = json.loads(redact(careful(encoded), (secret,))).replace("***", "")
    # But for the two characters that stand for its neighbours too.
    assert len(encoded) - len(kept) > len(secret.encode()) * 8 / 6 - 2


def test_the_longer_of_two_secrets_is_taken_out_whole() -> None:
    assert redact("secret-key-2, secret-key", ("secret-key", "secret-key-2")) == "***, ***"


@pytest.mark.parametrize(
    "text", ["", "nothing here", r"C:\u0041\x41 %41%2F &#65; &amp; \/", "secret key", "secret=key", "secret%2Dkez"]
)
def test_a_text_without_a_secret_is_left_as_it_came(text: str) -> None:
    assert redact(text, ("secret-key", "/+++++/", "\\\\\\\\\\\\")) == text

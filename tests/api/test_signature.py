"""Who may call: the published vectors, and requests whose bytes an HTTP client would not send."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import aiohttp
import pytest
from structlog.testing import capture_logs

from lumbung.api.signature import matches, sign
from lumbung.db import tenants
from lumbung.db.pool import Pool
from lumbung.keyring import Keyring
from lumbung.model import purpose_of_partner
from lumbung.settings import Settings
from tests.api.raw import HISTORY, UNAUTHENTICATED, UPDATE, check_error, exchange, signed, traces
from tests.flow.hub import FAST, Client, Hub, running_api
from tests.world import PARTNER_ID, PARTNER_SECRET, World

pytestmark = pytest.mark.asyncio(loop_scope="module")

BODY = {"sku": "sku1", "warehouse": "default", "available_stock": 7, "buffer_stock": 0, "channel_stock": []}
RAW_BODY = b'{"sku":"sku1","warehouse":"default","available_stock":7,"buffer_stock":0,"channel_stock":[]}'


def headers_of(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]


async def status_of(api: Hub, target: str, *, sign_target: str | None = None) -> int:
    headers = headers_of(signed(target, sign_target=sign_target))
    return (await exchange(api.client.url, "GET", target, headers)).status


async def check_refused(api: Hub, headers: dict[str, str], body: bytes = RAW_BODY) -> str:
    """That an update with these headers is answered 401 and changes nothing; returns the body without its reference."""
    before = await traces(api)
    async with api.client.session.post(api.client.url + UPDATE, data=body, headers=headers) as response:
        text, reference = await response.text(), response.headers["x-request-id"]
    assert (response.status, await traces(api)) == (401, before)
    return text.replace(reference, "")


# Golden vectors


async def test_the_published_get_vector_verifies() -> None:
    target = "/v1/partner/order?since=2018-10-13T13:34:52Z&until=2018-10-16T19:22:39Z&limit=100&offset=0"
    published = "XoPRRDtfNWaGm4nbw7A0LY/c2U0+jg3F3Ay2d3VR3bM="
    assert sign(PARTNER_SECRET, target, b"") == published
    assert matches(published, [PARTNER_SECRET], target.encode(), b"")


async def test_a_vector_over_target_and_body_verifies() -> None:
    body, golden = b'{"sku":"A"}', "Ctw/brco4irPbCWFJfjezePLDxegbAjIq6SvquLmYjs="
    assert sign("cnx_secret", UPDATE, body) == golden
    assert matches(golden, ["cnx_secret"], UPDATE.encode(), body)
    assert not matches(golden, ["cnx_secret"], UPDATE.encode(), b'{"sku": "A"}')
    assert not matches(golden, ["another"], UPDATE.encode(), body)


async def test_the_key_is_not_decoded_from_base64() -> None:
    import base64
    import hmac

    decoded = base64.b64encode(hmac.digest(base64.b64decode(PARTNER_SECRET), UPDATE.encode(), "sha256")).decode()
    assert not matches(decoded, [PARTNER_SECRET], UPDATE.encode(), b"")


async def test_any_of_the_live_keys_matches_and_an_empty_signature_never_does() -> None:
    given = sign("second", UPDATE, b"")
    assert matches(given, ["first", "second"], UPDATE.encode(), b"")
    assert not matches(given, [], UPDATE.encode(), b"")
    assert not matches("", ["first"], UPDATE.encode(), b"")


# What is signed


@pytest.mark.parametrize("leading", ["/", ""])
async def test_both_routes_take_the_target_with_and_without_its_leading_slash(api: Hub, leading: str) -> None:
    answer = await api.client.update(BODY, sign_target=leading + UPDATE[1:])
    assert answer.status == 200
    answer = await api.client.history("?limit=1&offset=0", sign_target=f"{leading}{HISTORY[1:]}?limit=1&offset=0")
    assert answer.status == 200


@pytest.mark.parametrize(
    "query",
    [
        "",
        "?",
        "?limit=1&offset=0",
        "?offset=0&limit=1",
        "?updated_at=2021-02-05T15:04:05%2B07:00&limit=1",
        "?updated_at=2021-02-05T15:04:05%2b07:00&limit=1",
        "?updated_at=2021-02-05T15:04:05+07:00&limit=1",
        "?updated_at=2021-02-05T15:04:05%2007:00&limit=1",
        "?updated_at=2021-02-05T15%3A04%3A05Z&limit=1",
        "?limit=1&&",
        "?%6Cimit=1",
        "?limit=1&x=?",
    ],
)
async def test_the_query_is_signed_as_it_was_sent(api: Hub, query: str) -> None:
    assert await status_of(api, HISTORY + query) == 200


@pytest.mark.parametrize(
    ("sent", "signed_over"),
    [
        ("?limit=1&offset=0", "?offset=0&limit=1"),
        ("?updated_at=2021-02-05T15:04:05%2b07:00", "?updated_at=2021-02-05T15:04:05%2B07:00"),
        ("?updated_at=2021-02-05T15:04:05%2B07:00", "?updated_at=2021-02-05T15:04:05+07:00"),
        ("?updated_at=2021-02-05T15:04:05+07:00", "?updated_at=2021-02-05T15:04:05%2007:00"),
        ("?limit=1", ""),
        ("", "?limit=1"),
        ("?limit=1", "?limit=1&"),
    ],
)
async def test_a_query_that_only_means_the_same_is_refused(api: Hub, sent: str, signed_over: str) -> None:
    assert await status_of(api, HISTORY + sent, sign_target=HISTORY + signed_over) == 401


async def test_an_encoded_path_is_signed_as_it_was_sent(api: Hub) -> None:
    encoded = "/v1/partner/inventory/h%69story"
    assert await status_of(api, encoded) == 200
    assert await status_of(api, encoded, sign_target=HISTORY) == 401


async def test_the_body_is_signed_byte_for_byte(api: Hub) -> None:
    spaced = (
        b' {"sku" : "sku1",\r\n\t"warehouse":"default", "available_stock":7,"buffer_stock":0,"channel_stock":[] } \n'
    )
    assert (await api.client.update(spaced)).status == 200
    await check_refused(api, signed(UPDATE, spaced.strip()), spaced)
    await check_refused(api, signed(UPDATE, spaced), spaced.replace(b"\r\n", b"\n"))


async def test_a_body_of_a_get_is_signed_too(api: Hub) -> None:
    answer = await api.client.call("GET", HISTORY, b"x")
    assert answer.status == 200
    answer = await api.client.call("GET", HISTORY, b"x", headers={"secret": sign(PARTNER_SECRET, HISTORY, b"")})
    assert answer.status == 401


# Refusals


async def test_every_refusal_has_the_same_body_but_for_its_reference(api: Hub) -> None:
    right = signed(UPDATE, RAW_BODY)
    expected = f'{{"message":"{UNAUTHENTICATED}","reference":"","errors":[]}}'
    for headers in (
        {},
        {"partner-id": PARTNER_ID},
        {"secret": right["secret"]},
        {"partner-id": "", "secret": ""},
        right | {"partner-id": "somebody"},
        right | {"partner-id": PARTNER_ID.lower()},
        right | {"secret": right["secret"].rstrip("=")},
        right | {"secret": sign("another", UPDATE, RAW_BODY)},
        right | {"secret": right["secret"].swapcase()},
        right | {"secret": PARTNER_SECRET},
        right | {"timestamp": "0"},
    ):
        assert await check_refused(api, headers) == expected, headers


@pytest.mark.parametrize("value", [b"\xff\xfe\xe9", "Toko\u20ac".encode(), b"a b\tc", b"x" * 100_000, b"'; --", b""])
@pytest.mark.parametrize("name", [b"partner-id", b"secret", b"timestamp"])
async def test_hostile_header_values_are_refused_like_wrong_ones(api: Hub, name: bytes, value: bytes) -> None:
    headers = dict(headers_of(signed(HISTORY))) | {name: value}
    answer = await exchange(api.client.url, "GET", HISTORY, list(headers.items()))
    assert (answer.status, answer.json["message"]) == (401, UNAUTHENTICATED)
    assert answer.json["reference"] == answer.headers["x-request-id"]


async def test_a_nul_in_a_header_is_a_bad_request(api: Hub) -> None:
    headers = dict(headers_of(signed(HISTORY))) | {b"partner-id": b"B98KL87\x00"}
    assert (await exchange(api.client.url, "GET", HISTORY, list(headers.items()))).status == 400


async def test_authentication_is_decided_before_the_body_is_parsed(api: Hub) -> None:
    garbage = b'{"sku":'
    await check_refused(api, signed(UPDATE, b""), garbage)
    before = await traces(api)
    [(field, _)] = check_error(await api.client.update(garbage), 400)
    assert (field, await traces(api)) == ("body", before)


async def test_a_path_that_does_not_exist_needs_no_signature(api: Hub) -> None:
    assert check_error(await api.client.call("GET", "/v1/partner/inventory", drop=("secret",)), 404) == []


# Partners


async def test_a_disabled_partner_is_told_so_only_with_the_right_signature(api: Hub) -> None:
    await api.world.partner("disabled", "its secret")
    client = replace(api.client, partner_id="disabled", secret="its secret")
    assert (await client.update(BODY)).status == 200
    async with api.world.pool.connection() as connection:
        await tenants.set_partner_disabled(connection, "disabled", disabled=True)
    before = await traces(api)
    answer = await client.update(BODY)
    assert check_error(answer, 403) == []
    assert answer.json["message"] == "This partner is disabled: ask the operator of this hub"
    check_error(await replace(client, secret="wrong").update(BODY), 401)
    assert await traces(api) == before
    async with api.world.pool.connection() as connection:
        await tenants.set_partner_disabled(connection, "disabled", disabled=False)
    assert (await client.update(BODY)).status == 200


async def test_the_old_secret_works_beside_the_new_one_until_it_expires(api: Hub) -> None:
    assert api.world.keyring is not None
    await api.world.partner("rotating", "old secret")
    new = api.world.keyring.encrypt(b"new secret", purpose_of_partner("rotating"))
    old_client = replace(api.client, partner_id="rotating", secret="old secret")
    new_client = replace(old_client, secret="new secret")
    assert [(await c.history()).status for c in (old_client, new_client)] == [200, 401]
    async with api.world.pool.connection() as connection:
        await tenants.rotate_partner(connection, partner_id="rotating", secret=new, old_expires_seconds=604800)
    assert [(await c.history()).status for c in (old_client, new_client)] == [200, 200]
    await api.world.execute("UPDATE partner SET old_secret_expires_at = now() WHERE id = 'rotating'")
    assert [(await c.history()).status for c in (old_client, new_client)] == [401, 200]


async def test_a_finished_rotation_ends_the_old_secret_at_once(api: Hub) -> None:
    assert api.world.keyring is not None
    await api.world.partner("finishing", "old secret")
    async with api.world.pool.connection() as connection:
        await tenants.rotate_partner(
            connection,
            partner_id="finishing",
            secret=api.world.keyring.encrypt(b"new secret", purpose_of_partner("finishing")),
            old_expires_seconds=604800,
        )
        assert await tenants.finish_rotation(connection, "finishing")
    client = replace(api.client, partner_id="finishing", secret="old secret")
    assert (await client.history()).status == 401
    assert (await replace(client, secret="new secret").history()).status == 200


async def test_a_secret_that_cannot_be_decrypted_is_an_internal_error_that_shows_nothing(api: Hub) -> None:
    await api.world.partner("broken", "its secret")
    await api.world.execute("UPDATE partner SET secret = '\\x0102' WHERE id = 'broken'")
    with capture_logs() as logs:
        answer = await replace(api.client, partner_id="broken").history()
    assert check_error(answer, 500) == []
    assert answer.json["message"] == "An internal error"
    [line] = [line for line in logs if line["event"] == "request failed"]
    assert (line["log_level"], line["reference"]) == ("error", answer.json["reference"])
    assert line["error"] != "An internal error"


# Timestamps


def now_ms(seconds: float = 0) -> str:
    return str(int((time.time() + seconds) * 1000))


async def stamped(client: Client, timestamp: str, *, over: str | None = None, drop: tuple[str, ...] = ()) -> int:
    secret = sign(client.secret, HISTORY, b"", timestamp if over is None else over)
    answer = await client.history("", headers={"timestamp": timestamp, "secret": secret}, drop=drop)
    return answer.status


async def test_a_strict_partner_must_send_a_timestamp(api: Hub) -> None:
    await api.world.partner("strict", "its secret", strict=True)
    client = replace(api.client, partner_id="strict", secret="its secret")
    assert (await client.history("")).status == 401
    assert await stamped(client, now_ms()) == 200
    assert await stamped(client, now_ms(1), over="") == 401, "signed without it"
    assert await stamped(client, now_ms(2), drop=("timestamp",)) == 401, "signed with it, not sent"


@pytest.mark.parametrize(("seconds", "status"), [(-290, 200), (290, 200), (-310, 401), (310, 401)])
async def test_a_timestamp_is_good_for_five_minutes_either_way(api: Hub, seconds: float, status: int) -> None:
    assert await stamped(api.client, now_ms(seconds)) == status


@pytest.mark.parametrize(
    "timestamp",
    ["abc", "-1", "+1", "1.5", "2026-01-01T00:00:00Z", "9" * 16, "9" * 5000, " ", "١٢٣".encode().decode("latin-1")],
)
async def test_a_timestamp_that_is_no_unix_time_in_milliseconds_is_refused(api: Hub, timestamp: str) -> None:
    headers = signed(HISTORY) | {"timestamp": timestamp, "secret": sign(PARTNER_SECRET, HISTORY, b"", timestamp)}
    answer = await exchange(api.client.url, "GET", HISTORY, headers_of(headers))
    assert answer.status == 401


async def test_a_replayed_timestamp_is_refused_and_takes_effect_once(api: Hub) -> None:
    headers = signed(UPDATE, RAW_BODY, timestamp=now_ms())
    answer = await api.client.update(RAW_BODY, headers=headers)
    assert answer.status == 200
    before = await traces(api)
    check_error(await api.client.update(RAW_BODY, headers=headers), 401)
    assert await traces(api) == before


async def test_a_refused_timestamp_is_not_remembered(api: Hub) -> None:
    remembered = "SELECT count(*) FROM seen_signature"
    before = await api.world.value(remembered)
    assert await stamped(api.client, now_ms(-1000)) == 401
    assert await stamped(api.client, now_ms(), over="1") == 401
    assert await api.world.value(remembered) == before
    assert await stamped(api.client, now_ms()) == 200
    assert await api.world.value(remembered) == before + 1


# Settings


@asynccontextmanager
async def another_api(api: Hub, settings: Settings) -> AsyncIterator[Client]:
    """A second process over the same database."""
    keyring = api.world.keyring
    assert isinstance(keyring, Keyring)
    async with (
        Pool(api.world.pool.url, settings) as pool,
        running_api(settings, pool, keyring) as (url, _),
        aiohttp.ClientSession() as session,
    ):
        yield Client(url, session)


@pytest.mark.parametrize("prefix", ["/hub/stock", "/hub/stock/", "hub/stock"])
async def test_a_prefix_that_a_proxy_strips_is_put_back(api: Hub, prefix: str) -> None:
    async with another_api(api, replace(FAST, public_path_prefix=prefix)) as client:
        assert (await client.update(BODY, sign_target="/hub/stock" + UPDATE)).status == 200
        assert (await client.update(BODY, sign_target="hub/stock" + UPDATE)).status == 200
        assert (await client.update(BODY)).status == 401


async def test_a_known_secret_is_kept_for_the_cache_time_and_no_longer(api: Hub) -> None:
    await api.world.partner("cached", "its secret")
    async with another_api(api, replace(FAST, partner_cache_seconds=3600.0)) as client:
        cached = replace(client, partner_id="cached", secret="its secret")
        assert (await cached.history()).status == 200
        await api.world.execute("UPDATE partner SET disabled_at = now() WHERE id = 'cached'")
        assert (await cached.history()).status == 200
        assert (await replace(api.client, partner_id="cached", secret="its secret").history()).status == 403


async def test_the_bytes_of_a_failed_signature_are_logged_only_while_an_operator_wants_it(api: Hub) -> None:
    await api.world.partner("traced", "its secret")
    client = replace(api.client, partner_id="traced", secret="wrong")

    async def logged() -> list[dict[str, object]]:
        with capture_logs() as logs:
            assert (await client.update(b'{"sku":"\xc3\xa9"}')).status == 401
        return [dict(line) for line in logs if line["event"] == "signature does not match"]

    assert await logged() == []
    async with api.world.pool.connection() as connection:
        await tenants.trace_partner(connection, "traced", seconds=60)
    [line] = await logged()
    assert line["hashed_bytes"] == repr(UPDATE.encode() + b'{"sku":"\xc3\xa9"}')
    assert (line["partner"], line["given"]) == ("traced", sign("wrong", UPDATE, b'{"sku":"\xc3\xa9"}'))
    assert "its secret" not in repr(line)
    client = replace(client, secret="its secret")
    with capture_logs() as logs:
        assert (await client.history()).status == 200
    assert [line for line in logs if line["event"] == "signature does not match"] == []
    await api.world.execute("UPDATE partner SET trace_until = now() WHERE id = 'traced'")
    client = replace(client, secret="wrong")
    assert await logged() == []


async def test_no_log_line_holds_a_secret(api: Hub) -> None:
    with capture_logs() as logs:
        await api.client.update(BODY)
        await replace(api.client, secret="wrong").update(BODY)
    assert PARTNER_SECRET not in repr(logs)


async def test_partners_of_one_world_do_not_sign_for_each_other(api: Hub) -> None:
    other = World(api.world.pool, api.world.keyring)
    await other.tenant("Other tenant of signatures")
    await other.partner("another partner", "another secret")
    client = replace(api.client, partner_id="another partner", secret=PARTNER_SECRET)
    assert (await client.history()).status == 401

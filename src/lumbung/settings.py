"""Every limit, timeout and size, in one frozen object; the only reader of the environment.

Each field is set by `LUMBUNG_` and its name in capitals (`LUMBUNG_BODY_BYTES_MAX=2097152`). Units come last in names.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

import platformdirs

from lumbung.errors import ConfigurationError

PREFIX = "LUMBUNG_"
PORT_MAX = 65535
# The tests' own, and those that Kubernetes makes for a service named lumbung.
OTHERS = ("LUMBUNG_TEST_", "LUMBUNG_SERVICE_", "LUMBUNG_PORT_")


def _setting(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What an operator can set. `help_of(name)` gives each field's meaning."""

    # Where things are
    database_url: str = _setting("", "PostgreSQL to use; empty: the embedded one in data_dir")
    data_dir: Path = _setting(
        Path(platformdirs.user_data_dir("lumbung")), "the embedded database, the key file and logs"
    )
    key_file: str = _setting("", "keys that encrypt secrets at rest; empty: `keys` in data_dir")
    log_format: str = _setting("auto", "auto (by terminal), json or console")
    log_level: str = _setting("info", "debug, info, warning or error")

    # Database
    database_connections_max: int = _setting(16, "connections a process opens at most")
    database_connect_timeout_seconds: float = _setting(5.0, "to open a connection")
    database_command_timeout_seconds: float = _setting(30.0, "for one statement; a half-open socket ends here")
    database_idle_transaction_timeout_seconds: float = _setting(
        300.0, "a process that says nothing for so long within a transaction loses it, and its locks; 0: never"
    )
    database_keepalive_seconds: int = _setting(
        30,
        "silence after which the server asks whether we are still there; without an answer for as long again the"
        " connection ends; 0: as the server is set up. A pgbouncer that refuses the parameter is not sent it",
    )
    database_statement_cache_size: int = _setting(
        256, "prepared statements a connection; 0 behind a transaction-pooling pgbouncer"
    )
    migrate_timeout_seconds: float = _setting(
        600.0, "to wait for another process that migrates, to migrate, and for each step of dropping old partitions"
    )
    partitions_ahead_days: int = _setting(60, "partitions of the histories exist this far ahead")
    maintenance_interval_seconds: float = _setting(3600.0, "between two looks at partitions and old rows")

    # The partner API
    host: str = _setting("127.0.0.1", "address that the API listens on")
    port: int = _setting(8080, "port that the API listens on; 0 picks a free one")
    connections_max: int = _setting(10_000, "connections that the API holds at once; further ones wait")
    public_path_prefix: str = _setting("", "a path prefix that a proxy strips; put back before signatures are checked")
    body_bytes_max: int = _setting(1_048_576, "longest request body; longer ones are answered 413 unread")
    bodies_bytes_max: int = _setting(
        268_435_456, "of bodies longer than 64 KiB that are on their way to a process; more are answered 503"
    )
    json_depth_max: int = _setting(32, "deepest nesting of a request body")
    channel_stock_entries_max: int = _setting(100, "entries in channel_stock")
    header_read_timeout_seconds: float = _setting(10.0, "for a client to send its request line and headers")
    body_read_timeout_seconds: float = _setting(15.0, "for a client to send its body")
    answer_write_timeout_seconds: float = _setting(
        15.0, "a client that takes nothing of its answer for so long is cut off (Linux only); 0: never"
    )
    partner_cache_seconds: float = _setting(2.0, "a partner's secrets are read again after this; 0: every time")
    partner_cache_entries_max: int = _setting(10_000, "partners kept, known and unknown")
    secret_overlap_seconds: int = _setting(7 * 86400, "an old partner secret works this long after a rotation")
    timestamp_window_seconds: float = _setting(300.0, "for partners that sign a timestamp: oldest and newest accepted")
    as_of_ahead_seconds_max: float = _setting(300.0, "as_of may be this far in the future")
    idempotency_key_seconds: int = _setting(86400, "an Idempotency-Key is remembered this long")
    idempotency_key_chars_max: int = _setting(255, "longest Idempotency-Key")
    history_limit_max: int = _setting(1000, "records a page of the history")
    history_limit_default: int = _setting(100, "records a page when limit is absent")
    history_items_max: int = _setting(1000, "items embedded in a record of the history")

    # Accepting
    group_wait_ms: float = _setting(
        2.0, "a group of updates is committed after this, or when full; at once when no other is being committed"
    )
    group_updates_max: int = _setting(256, "updates in a group")
    group_updates_min: int = _setting(
        32, "updates that wait are not divided into smaller groups than this to be committed at the same time"
    )
    group_commits_in_flight_max: int = _setting(2, "groups committed at the same time by a process")
    accept_queue_max: int = _setting(
        5000, "updates that wait in a process; more are answered 503 at once; below connections_max"
    )
    accept_timeout_seconds: float = _setting(20.0, "an update not committed by then is answered 503")
    group_lock_timeout_ms: int = _setting(50, "a group waits this long for a row lock before it is split")
    update_lock_timeout_ms: int = _setting(5000, "an update on its own waits this long for a row lock")
    wake_interval_ms: float = _setting(10.0, "between two wake-ups that an API process sends")
    chunk_rows_max: int = _setting(1000, "rows that imports and store changes commit at once")

    # Delivering
    lease_seconds: float = _setting(
        15.0, "lifetime of a worker's leases; a channel's live at least 2.2 times as long as its calls may take"
    )
    lease_renew_seconds: float = _setting(5.0, "between two renewals")
    look_interval_ms: float = _setting(20.0, "shortest time between two looks for work")
    poll_seconds: float = _setting(1.0, "between two looks for work when no wake-up comes")
    claim_stores_max: int = _setting(500, "stores that a worker leases in one look")
    window_listings_max: int = _setting(200, "due listings of a store that a worker reads at once")
    stores_read_together_max: int = _setting(
        64, "stores whose next listings are read in one statement, when several want theirs at the same moment"
    )
    window_fresh_ms: float = _setting(
        20.0, "a quantity read longer ago, and said to be another since, is read again before it is sent"
    )
    window_untold_ms: float = _setting(
        200.0, "a quantity read longer ago is read again before it is sent, though nobody has said anything"
    )
    hinted_listings_max: int = _setting(
        1000,
        "due listings of a store and lane that a worker remembers as hinted; more are found by a scan of the lanes",
    )
    scan_rest: float = _setting(
        50.0,
        "scans of the lanes of a worker's stores, its looks for work and its counts for the metrics rest so many times"
        " as long as they took",
    )
    scan_rest_seconds_max: float = _setting(20.0, "scans rest no longer than this, whatever they took")
    look_rest_seconds_max: float = _setting(5.0, "looks for work rest no longer than this, whatever they took")
    calls_in_flight_max: int = _setting(256, "HTTP calls of a worker to one channel at once")
    record_interval_ms: float = _setting(5.0, "results are written at least this often")
    record_backlog_rows_max: int = _setting(
        10_000, "results that may wait to be written before no call is started; as many of stores with locked rows"
    )
    record_lock_timeout_ms: int = _setting(
        1000, "results wait this long for a row lock before stores are written apart"
    )
    record_rows_max: int = _setting(1000, "results written in one transaction")
    stop_seconds: float = _setting(60.0, "for calls in flight to end after SIGTERM")
    backoff_first_seconds: float = _setting(0.5, "first backoff; doubles with each failure, with full jitter")
    backoff_max_seconds: float = _setting(900.0, "longest backoff")
    throttle_default_seconds: float = _setting(
        60.0, "a throttled store waits this long when the marketplace names no time"
    )
    throttle_seconds_min: float = _setting(1.0, "a throttled store waits at least this long: Retry-After may be 0")
    throttle_seconds_max: float = _setting(3600.0, "a throttled store waits no longer, whatever the marketplace asks")
    defer_default_seconds: float = _setting(
        1800.0, "a locked listing (campaign, holiday) waits this long when no time is named"
    )
    defer_seconds_max: float = _setting(3600.0, "a locked listing is tried again at least this often")
    floor_retry_seconds: float = _setting(
        60.0, "a listing below what the marketplace has reserved is tried again this often"
    )
    submitted_check_seconds_max: float = _setting(900.0, "longest wait before asking what became of submitted work")
    submitted_seconds_max: float = _setting(3600.0, "submitted work that is not applied by then is in doubt")
    quiesce_seconds_max: float = _setting(3600.0, "longest time that a store may say its lost calls can take effect")
    storm_rejections: int = _setting(50, "rejections of different listings in a row that pause a store, parking none")
    stores_held_max: int = _setting(20_000, "stores that a worker leases at most")
    store_idle_seconds: float = _setting(600.0, "a store that had nothing due for so long is given back")
    give_back_percent: float = _setting(10.0, "of the stores above its share that a worker gives back at a renewal")
    token_refresh_seconds_min: float = _setting(60.0, "between two tries to refresh a token before it expires")
    token_renew_ahead_seconds: float = _setting(
        864_000.0, "so long before a store's refresh token dies its tokens are renewed, though nothing is due"
    )
    stats_retention_days: int = _setting(30, "statistics a minute are kept this long; 0: for ever")
    metrics_host: str = _setting("127.0.0.1", "address of a worker's metrics")
    metrics_port: int = _setting(8081, "port of a worker's metrics; 0: none")
    metrics_rows_max: int = _setting(1_000_000, "no more than so many listings are counted for a metric")
    metrics_interval_seconds: float = _setting(15.0, "what is due and waits is counted this often for the metrics")
    park_retry_seconds: float = _setting(3600.0, "a parked listing is tried again by new updates at most this often")
    breaker_failures: int = _setting(5, "failures in a row that open a store's breaker")
    breaker_probe_seconds: float = _setting(5.0, "first wait for a probe; doubles up to breaker_probe_seconds_max")
    breaker_probe_seconds_max: float = _setting(60.0, "longest wait for a probe")
    call_retention_days: int = _setting(14, "calls to marketplaces are kept this long, in whole weeks; 0: for ever")
    history_retention_days: int = _setting(400, "updates and items are kept this long, in whole weeks; 0: for ever")
    connect_timeout_seconds: float = _setting(5.0, "to connect to a marketplace")
    call_timeout_seconds_max: float = _setting(
        20.0, "no call to a marketplace waits longer, whatever its channel or store says; above 0"
    )
    call_source_address: str = _setting(
        "",
        "IP address of this machine that calls to marketplaces leave from (some let in only addresses that they know);"
        " empty: as the system chooses",
    )
    answer_bytes_max: int = _setting(1_048_576, "longest answer read from a marketplace")
    call_text_chars_max: int = _setting(16_384, "of a call's request and answer kept")
    deadline_sweep_seconds: float = _setting(10.0, "items that are out of time are ended at least this often")
    deadline_margin_seconds: float = _setting(
        60.0, "longer than accepting an update can take: how far behind the deadline its sweep looks again"
    )
    remap_doubt_seconds: float = _setting(
        120.0, "a call that was under way when its listing was mapped to another SKU may take effect for this long"
    )
    reconcile_poll_seconds: float = _setting(0.5, "between two looks of `lumbung reconcile` at how far it is")
    reconcile_stall_seconds: float = _setting(60.0, "`lumbung reconcile` ends when nothing was read for so long")
    history_roll_up_seconds: float = _setting(30.0, "between two roll-ups of the counters of the history")

    @property
    def doubt_seconds_max(self) -> float:
        """Nothing is in doubt for longer: what was submitted, then a lost call of the slowest store."""
        return self.submitted_seconds_max + self.quiesce_seconds_max

    @property
    def key_path(self) -> Path:
        return Path(self.key_file) if self.key_file else self.data_dir / "keys"


def help_of(name: str) -> str:
    return next(str(f.metadata["help"]) for f in fields(Settings) if f.name == name)


def load(environ: Mapping[str, str] | None = None, **overrides: object) -> Settings:
    """Settings from the environment; `overrides` win. Raises ConfigurationError naming the variable."""
    environ = os.environ if environ is None else environ
    _refuse_unknown(environ)
    types = get_type_hints(Settings)
    values: dict[str, object] = {}
    for f in fields(Settings):
        text = environ.get(PREFIX + f.name.upper())
        if text is not None:
            values[f.name] = _parse(PREFIX + f.name.upper(), text, types[f.name])
    values.update({name: value for name, value in overrides.items() if value is not None})
    settings = Settings(**values)  # type: ignore[arg-type]
    _refuse_contradictions(settings)
    return settings


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    """A misspelt variable would leave the default in force, in silence."""
    known = [PREFIX + f.name.upper() for f in fields(Settings)]
    for variable in sorted(environ.keys() - set(known)):
        if variable.startswith(PREFIX) and not variable.startswith(OTHERS):
            [closest] = difflib.get_close_matches(variable.upper(), known, n=1, cutoff=0.0)
            raise ConfigurationError(f"{variable} is not a setting; the closest one is {closest}")


def _refuse_contradictions(settings: Settings) -> None:
    # An update that waits holds a connection: the queue must fill up while there are some left to say so on.
    if settings.accept_queue_max >= settings.connections_max:
        raise ConfigurationError(
            f"{PREFIX}ACCEPT_QUEUE_MAX ({settings.accept_queue_max}) must be below"
            f" {PREFIX}CONNECTIONS_MAX ({settings.connections_max}): each update that waits holds a connection"
        )
    if settings.bodies_bytes_max < settings.body_bytes_max:
        raise ConfigurationError(
            f"{PREFIX}BODIES_BYTES_MAX ({settings.bodies_bytes_max}) must be at least"
            f" {PREFIX}BODY_BYTES_MAX ({settings.body_bytes_max}): a body of that length would never be read"
        )
    if settings.call_timeout_seconds_max <= 0:
        raise ConfigurationError(f"{PREFIX}CALL_TIMEOUT_SECONDS_MAX must be above 0: no call could be answered in time")


def _parse(variable: str, text: str, kind: type) -> object:
    if kind is Path:
        return Path(text).expanduser()
    if kind is str:
        return text
    try:
        value = kind(text)
    except ValueError:
        raise ConfigurationError(f"{variable} must be {_noun(kind)}, not {text!r}") from None
    if not 0 <= value < float("inf"):
        raise ConfigurationError(f"{variable} must be 0 or more, not {text!r}")
    if variable.endswith("_PORT") and value > PORT_MAX:
        raise ConfigurationError(f"{variable} must be a port, 0 to {PORT_MAX}, not {text!r}")
    return value


def _noun(kind: type) -> str:
    return "a whole number" if kind is int else "a number"

"""Logs on stderr: for people on a terminal, JSON otherwise; other libraries' warnings among them; never a secret."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, TextIO, cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from lumbung.errors import ConfigurationError
from lumbung.settings import Settings

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
FORMATS = ("auto", "json", "console")
SECRET_WORDS = frozenset(
    {"secret", "secrets", "credential", "credentials", "token", "tokens", "password", "passwords"}
    | {"authorization", "key", "keys", "signature", "sign"}
)
REDACTED = "[redacted]"


def configure(settings: Settings) -> None:
    """Set up structlog and the standard library's logging. Raises ConfigurationError for a format or level unknown."""
    level = LEVELS.get(settings.log_level)
    if level is None:
        raise ConfigurationError(f"LUMBUNG_LOG_LEVEL must be {_either(LEVELS)}, not {settings.log_level!r}")
    if settings.log_format not in FORMATS:
        raise ConfigurationError(f"LUMBUNG_LOG_FORMAT must be {_either(FORMATS)}, not {settings.log_format!r}")
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        redact,
    ]
    last = _renderer(settings.log_format)
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(file=cast(TextIO, Unfailing(sys.stderr))),
        cache_logger_on_first_use=False,
    )
    _route_standard_library(shared, last, max(level, logging.WARNING))


class Unfailing(io.TextIOBase):
    """A stream to write to that loses what cannot be written (a full disk, a reader that has gone): a hub that cannot
    log goes on with its work."""

    def __init__(self, stream: TextIO | None):
        self._stream = stream

    def write(self, text: str) -> int:
        if self._stream is not None:
            with suppress(OSError, ValueError):
                self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        if self._stream is not None:
            with suppress(OSError, ValueError):
                self._stream.flush()


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replaces what stands under a key that names a secret, at any depth of mappings and sequences."""
    return {key: _redacted(key, value) for key, value in event.items()}


def _redacted(key: str, value: Any) -> Any:
    if not SECRET_WORDS.isdisjoint(key.lower().replace("-", "_").split("_")):
        return REDACTED
    if isinstance(value, Mapping):
        return {str(inner): _redacted(str(inner), held) for inner, held in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted("", held) for held in value]
    return value


def _renderer(log_format: str) -> list[Processor]:
    """Tracebacks without the frames' variables: these are read after `redact`, and hold credentials in plain text."""
    terminal = sys.stderr is not None and sys.stderr.isatty()
    if log_format == "console" or (log_format == "auto" and terminal):
        return [structlog.dev.ConsoleRenderer(colors=terminal, exception_formatter=structlog.dev.plain_traceback)]
    tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    return [structlog.processors.ExceptionRenderer(tracebacks), structlog.processors.JSONRenderer()]


def _route_standard_library(shared: list[Processor], last: list[Processor], level: int) -> None:
    handler = logging.StreamHandler(Unfailing(sys.stderr))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last]
        )
    )
    handler.set_name("lumbung")
    root = logging.getLogger()
    for old in [held for held in root.handlers if held.get_name() == "lumbung"]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)


def _either(words: Any) -> str:
    *others, last = words
    return f"{', '.join(others)} or {last}"

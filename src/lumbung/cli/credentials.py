"""Credentials files of stores and applications: JSON, or TOML by their suffix; a flat list of names and values. No
value is ever shown."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path

from lumbung.channels import registry
from lumbung.channels.base import Channel
from lumbung.channels.catalogue import CATALOGUE
from lumbung.cli import session
from lumbung.clock import SystemClock
from lumbung.db.stores import StoreRow
from lumbung.dispatch import opening
from lumbung.errors import ConfigurationError, Problem, UsageError
from lumbung.keyring import Keyring
from lumbung.settings import Settings

FILE_BYTES_MAX = 65_536


def connector(code: str) -> Channel:
    """Raises UsageError with the codes that have a connector."""
    channel = registry.find(code)
    if channel is not None:
        return channel
    there = ", ".join(f"{known} ({held.manifest.name})" for known, held in sorted(registry.CHANNELS.items()))
    if code in CATALOGUE:
        raise UsageError(f"{CATALOGUE[code].name} ({code}) has no connector in this version; there are: {there}")
    raise UsageError(f"There is no channel {code!r}; there are: {there}")


def read(path: Path) -> dict[str, str]:
    """Raises UsageError that names the place, never what stands there."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from None
    if len(content) > FILE_BYTES_MAX:
        raise UsageError(f"{path} is longer than {FILE_BYTES_MAX} bytes: that is no credentials file")
    values = _toml(path, content) if path.suffix == ".toml" else _json(path, content)
    wrong = [name for name, value in values.items() if type(value) not in {str, int, float}]
    if wrong:
        raise UsageError(f"{path}: {', '.join(wrong)} must be text")
    return {name: str(value) for name, value in values.items()}


async def check_store(
    channel: Channel, own: Mapping[str, str], application: Mapping[str, str], settings: Settings
) -> None:
    """Raises ConfigurationError when a store cannot be opened with its own file and its application's; its problems
    name the fields of the store's."""
    shared = _of_application(channel)
    misplaced = [
        Problem(name, "belongs to the application, not to the store: see `lumbung app add`")
        for name in own
        if name in shared
    ]
    problems = await _problems(channel, {**application, **own}, settings)
    _refuse(channel, (*misplaced, *(problem for problem in problems if problem.field not in shared)))
    if problems:
        raise ConfigurationError(
            f"The application's credentials of {channel.manifest.name} cannot be right: use `lumbung app credentials`",
            problems,
        )


async def check_application(channel: Channel, values: Mapping[str, str], settings: Settings) -> None:
    """Raises ConfigurationError when no store could be opened with these, whatever its own are."""
    shared = _of_application(channel)
    own = {entry.name for entry in channel.manifest.credentials} - shared
    misplaced = [
        Problem(name, "belongs to a store, not to the application: see `lumbung store add`")
        for name in values
        if name in own
    ]
    problems = await _problems(channel, values, settings)
    _refuse(channel, (*misplaced, *(problem for problem in problems if problem.field not in own)))


def opened(keyring: Keyring, store: StoreRow) -> dict[str, str]:
    """A store's credentials and its application's in one mapping. Raises ConfigurationError."""
    return opening.opened(keyring, store.id, store.credentials, store.channel_app_id, store.application_credentials)


def _of_application(channel: Channel) -> set[str]:
    return {entry.name for entry in channel.manifest.credentials if entry.application}


async def _problems(channel: Channel, values: Mapping[str, str], settings: Settings) -> tuple[Problem, ...]:
    async with session.http_client(settings) as http:
        try:
            channel.open(values, http, SystemClock())
        except ConfigurationError as error:
            if not error.problems:
                raise
            return error.problems
    return ()


def _refuse(channel: Channel, problems: tuple[Problem, ...]) -> None:
    if problems:
        # The message names the fields too, for where there is no list beneath it.
        raise ConfigurationError(f"These credentials of {channel.manifest.name} cannot be right", problems)


def _json(path: Path, content: bytes) -> dict[str, object]:
    try:
        values = json.loads(content.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise UsageError(f"{path}, line {error.lineno}, column {error.colno}: not JSON ({error.msg})") from None
    except (UnicodeDecodeError, RecursionError):
        raise UsageError(f"{path} is not JSON in UTF-8") from None
    if not isinstance(values, dict):
        raise UsageError(f'{path} must hold a JSON object, such as {{"api_client_id": "..."}}')
    return values


def _toml(path: Path, content: bytes) -> dict[str, object]:
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        place = str(error).rpartition("(")[2].rstrip(")") if isinstance(error, tomllib.TOMLDecodeError) else "in UTF-8"
        raise UsageError(f"{path} is not TOML ({place})") from None

"""Secrets at rest: AES-256-GCM under keys that are not in the database.

    blob     = version (1 byte, 0x01) | key id (8 bytes) | nonce (12 bytes) | ciphertext with its tag
    key file = a line a key: `id base64key` (16 hex digits, 32 bytes in base64); `#` starts a comment;
               the first key encrypts, all decrypt

The purpose ("partner:B98KL87") is authenticated with the ciphertext, so one moved to another row does not decrypt.

Rotating: `Keyring.add_key(path)` puts a new key first. Running processes learn it when they meet a blob that names it;
older keys stay until nothing is encrypted with them any more.
"""

from __future__ import annotations

import base64
import binascii
import os
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from lumbung.errors import ConfigurationError

VERSION = b"\x01"
KEY_ID_BYTES = 8
KEY_BYTES = 32
NONCE_BYTES = 12
HEADER_BYTES = len(VERSION) + KEY_ID_BYTES
BOM = b"\xef\xbb\xbf"
FIRST_LINES = """\
# Keys that encrypt the secrets in Lumbung's database. Without this file they cannot be read: keep a copy of it,
# apart from the copies of the database. The first key encrypts, all decrypt.
"""


class Keyring:
    """The keys of one key file. `repr` and errors show no key."""

    def __init__(self, path: Path, keys: Mapping[bytes, AESGCM]):
        self.path = path
        self._keys = keys  # by id, in the order of the file

    @classmethod
    def load(cls, path: Path, *, create: bool) -> Self:
        """Read the key file; with `create`, make one with a fresh key where there is none (mode 0600).

        Processes that create at once all get the key of the one that was first. Raises ConfigurationError for a file
        that is missing, that others may read, or that is not a key file, naming the line.
        """
        if create and not path.exists():
            _create(path)
        return cls(path, _read(path))

    @classmethod
    def expected(cls, path: Path) -> Self:
        """As `load`, but a file that is not there yet is read when a key is needed first."""
        return cls(path, _read(path) if path.exists() else {})

    @classmethod
    def add_key(cls, path: Path) -> Self:
        """Put a fresh key first in the file, so that it encrypts from now on; nothing is encrypted anew.

        Raises ConfigurationError as `load` does, and while another process adds one.
        """
        new = path.with_name(path.name + ".new")
        with _told(path):
            try:
                descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            except FileExistsError:
                raise ConfigurationError(
                    f"{new} exists: another process adds a key, or was stopped while it did; in that case remove it"
                ) from None
        try:
            _read(path)
            with _told(path), open(descriptor, "wb", closefd=False) as file:
                file.write(_key_line().encode() + path.read_bytes().removeprefix(BOM))
                file.flush()
                os.fsync(descriptor)
                new.replace(path)
                _sync_folder(path.parent)
        finally:
            os.close(descriptor)
            new.unlink(missing_ok=True)
        return cls.load(path, create=False)

    def is_missing(self) -> bool:
        """Whether no key was ever read, and there is no file to read one from."""
        return not self._keys and not self.path.exists()

    def encrypt(self, plaintext: bytes, purpose: str) -> bytes:
        """The blob to store. `purpose` names the one place it is for, and is needed to read it."""
        if not self._keys:
            self._keys = _read(self.path)
        key_id, key = next(iter(self._keys.items()))
        header = VERSION + key_id
        nonce = secrets.token_bytes(NONCE_BYTES)
        return header + nonce + key.encrypt(nonce, plaintext, header + purpose.encode())

    def decrypt(self, blob: bytes, purpose: str) -> bytes:
        """What was encrypted for this purpose.

        Raises ConfigurationError for a key that the file does not have (naming its id and the file), and for a blob
        that was changed, cut, or made for another purpose.
        """
        if len(blob) < HEADER_BYTES + NONCE_BYTES or not blob.startswith(VERSION):
            raise ConfigurationError(f"The secret of {purpose} is not in a form that this version of Lumbung reads")
        header, nonce = blob[:HEADER_BYTES], blob[HEADER_BYTES : HEADER_BYTES + NONCE_BYTES]
        key = self._key(header[len(VERSION) :], purpose)
        try:
            return key.decrypt(nonce, blob[HEADER_BYTES + NONCE_BYTES :], header + purpose.encode())
        except InvalidTag:
            raise ConfigurationError(f"The secret of {purpose} was changed, or belongs to something else") from None

    def __repr__(self) -> str:
        return f"Keyring({str(self.path)!r}, keys={[key_id.hex() for key_id in self._keys]})"

    def _key(self, key_id: bytes, purpose: str) -> AESGCM:
        if key_id not in self._keys:
            self._keys = _read(self.path)  # a key may have been added since
        key = self._keys.get(key_id)
        if key is None:
            raise ConfigurationError(
                f"The secret of {purpose} is encrypted with key {key_id.hex()}, which {self.path} does not have"
            )
        return key


def _key_line() -> str:
    return f"{secrets.token_hex(KEY_ID_BYTES)} {base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()}\n"


def _create(path: Path) -> None:
    """Write beside it, then link: the file is there whole or not at all, and who comes second changes nothing."""
    new = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    with _told(path.parent, "The directory"):
        path.parent.mkdir(parents=True, exist_ok=True)
    with _told(path):
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with open(descriptor, "w") as file:
                file.write(FIRST_LINES + _key_line())
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):
                os.link(new, path)
            _sync_folder(path.parent)
        finally:
            new.unlink()


def _read(path: Path) -> Mapping[bytes, AESGCM]:
    with _told(path), path.open("rb") as file:
        mode = os.fstat(file.fileno()).st_mode & 0o777
        if sys.platform != "win32" and mode & 0o077:
            raise ConfigurationError(f"Others may read the key file {path} (mode {mode:04o}): run chmod 600 {path}")
        lines = file.read().removeprefix(BOM).splitlines()  # editors put one there
    keys: dict[bytes, AESGCM] = {}
    for number, line in enumerate(lines, start=1):
        words = line.partition(b"#")[0].split()
        if not words:
            continue
        key_id, key = _parse(words, f"{path}, line {number}")
        if key_id in keys:
            raise ConfigurationError(f"{path}, line {number}: key {key_id.hex()} is there twice")
        keys[key_id] = AESGCM(key)
    if not keys:
        raise ConfigurationError(f"The key file {path} has no key in it: put it back from its copy")
    return keys


def _parse(words: list[bytes], where: str) -> tuple[bytes, bytes]:
    """Never says what stands there: a key that is one character short is still nearly a key."""
    try:
        id_text, key_text = words
        key_id = binascii.unhexlify(id_text)
        key = base64.b64decode(key_text, validate=True)
    except ValueError:
        key_id = key = b""
    if len(key_id) != KEY_ID_BYTES or len(key) != KEY_BYTES:
        raise ConfigurationError(
            f"{where}: expected {2 * KEY_ID_BYTES} hex digits, a space, and {KEY_BYTES} bytes in base64."
            " Put the key file back from its copy"
        )
    return key_id, key


@contextmanager
def _told(path: Path, what: str = "The key file") -> Iterator[None]:
    try:
        yield
    except FileExistsError as error:  # in the place of a directory
        raise ConfigurationError(f"{what} {path} cannot be used: it is a file") from error
    except OSError as error:
        raise ConfigurationError(f"{what} {path} cannot be used: {error.strerror or error}") from error


def _sync_folder(folder: Path) -> None:
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

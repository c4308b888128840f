"""The key file of an installation. It is made with the installation, and never again in silence: a new key opens no
secret that an old one sealed."""

from __future__ import annotations

from lumbung.db import sealed
from lumbung.db.pool import Pool
from lumbung.errors import ConfigurationError
from lumbung.keyring import Keyring


async def ensure(pool: Pool, keyring: Keyring) -> None:
    """Make the key file where there is none and nothing needs one; the schema is there.

    Raises ConfigurationError when there is none and the database has secrets.
    """
    if not keyring.is_missing():
        return
    async with pool.connection() as connection:
        needed = await sealed.exist(connection)
    if needed and keyring.is_missing():  # another process may just have begun the installation
        raise ConfigurationError(
            f"The key file {keyring.path} is missing, and the database has secrets that only its keys open: put it"
            " back from its copy, or name its place in LUMBUNG_KEY_FILE. If it is lost, `lumbung key new` makes"
            " another: every partner and store then needs a new secret"
        )
    Keyring.load(keyring.path, create=True)

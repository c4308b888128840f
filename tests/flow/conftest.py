from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from lumbung.keyring import Keyring
from tests.flow.hub import Hub, running_hub


@pytest.fixture
async def hub(database_url: str, keyring: Keyring) -> AsyncIterator[Hub]:
    async with running_hub(database_url, keyring) as running:
        yield running

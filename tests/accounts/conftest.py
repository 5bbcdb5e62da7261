"""What accounts need besides their settings: threads, time, a database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from accounts_office import Clock, Counting

from mailserver.accounts.database import Database


@pytest.fixture
def executor() -> Iterator[Counting]:
    with Counting(4) as executor:
        yield executor


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(str(tmp_path / "accounts.sqlite"))

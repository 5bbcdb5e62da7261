"""Every asynchronous test of this room runs on both event loops."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import uvloop
from pop3_office import Post


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
async def post(tmp_path: Path) -> AsyncIterator[Post]:
    """A post office not yet started."""
    before = threading.active_count()
    office = Post(tmp_path / "mail")
    os.makedirs(office.root)
    yield office
    if hasattr(office, "service"):
        await office.stop()
    await (
        asyncio.get_running_loop().shutdown_default_executor()
    )  # how many threads to_thread gets is its business
    assert threading.active_count() <= before

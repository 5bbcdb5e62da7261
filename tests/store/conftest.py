"""What the store promises, it promises on both event loops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import uvloop


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    asyncio_loop = {"asyncio": asyncio.new_event_loop}
    return (
        {**asyncio_loop, "uvloop": uvloop.new_event_loop} if "test_durable" in item.nodeid else asyncio_loop
    )

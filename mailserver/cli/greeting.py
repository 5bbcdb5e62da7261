"""Does a listener answer? Connects like a client and reads the greeting (RFC 5321 4.3.1, RFC 1939 section
3)."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

TIMEOUT = 5.0  # seconds for connection, TLS and greeting together
_LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"  # PROXY protocol version 2: this connection is the proxy's own


def greetings(listeners: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """``listeners``: what the control command ``health`` returns. For each: service, address, healthy,
    said."""

    async def all_of_them() -> list[dict[str, Any]]:
        return list(await asyncio.gather(*map(_greeting, listeners)))

    return asyncio.run(all_of_them())


def connectable(host: str) -> str:
    """Where to connect for a listener on ``host``: the loopback address for one on all addresses."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound


async def _greeting(listener: dict[str, Any]) -> dict[str, Any]:
    service = listener["service"] + ("-tls" if listener["tls"] else "")
    host = connectable(listener["host"])
    shown = f"[{host}]" if ":" in host else host
    result = {"service": service, "address": f"{shown}:{listener['port']}"}
    expected = b"+OK" if listener["service"] == "pop3" else b"220"
    try:
        async with asyncio.timeout(TIMEOUT):
            if listener["begins_with"] == "refused":  # it hangs up on whoever is no proxy, and so it should
                _, writer = await asyncio.open_connection(host, listener["port"])
                writer.close()
                return result | {"healthy": True, "said": "for proxies only"}
            line = await _first_line(
                host,
                listener["port"],
                listener["tls"],
                _LOCAL if listener["begins_with"] == "header" else b"",
            )
    except (
        OSError,
        ValueError,
    ) as error:  # TimeoutError and TLS errors are OSErrors, an endless line a ValueError
        return result | {"healthy": False, "said": str(error) or f"no greeting within {TIMEOUT:g} seconds"}
    said = line.decode("utf-8", "replace").strip()
    return result | {"healthy": line.startswith(expected), "said": said or "closed without a greeting"}


async def _first_line(host: str, port: int, tls: bool, header: bytes) -> bytes:
    context = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = (
            False  # we ask whether it answers; whose name it bears is the clients' question
        )
        context.verify_mode = ssl.CERT_NONE
    reader, writer = await asyncio.open_connection(host, port, ssl=None if header else context)
    try:
        if header:
            writer.write(header)
            if context is not None:
                await writer.start_tls(context)
        line = await reader.readline()
        writer.write(b"QUIT\r\n")
        await writer.drain()
    finally:
        writer.close()
    return line

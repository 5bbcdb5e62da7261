"""The tables about whom we trust and how far: [guard], [rates], [proxy], [confine]."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from mailserver.config.section import Listens, Section
from mailserver.config.units import Duration, OneOrMore


class Guard(Section):
    """Failed logins slow down; nobody is ever barred for good."""

    trusted: Annotated[tuple[str, ...], OneOrMore] = Field(
        default=("127.0.0.0/8", "::1"), description="Networks whose logins are never slowed down."
    )
    free_failures: int = Field(
        default=3, ge=0, description="Failed logins of one address at one account that cost nothing."
    )
    first_delay: Duration = Field(
        default=1.0, description="Wait before the next login after that; doubles with each further failure."
    )
    longest_delay: Duration = Field(
        default=30.0, description="Longest wait; logins that would wait longer are put off without a check."
    )
    accounts_per_address: int = Field(
        default=5, ge=1, description="Accounts one address may fail at before it is slowed down as a whole."
    )
    forget: Duration = Field(
        default=3600.0, description="Time without failures after which they are forgotten."
    )
    good_login: Duration = Field(
        default=604_800.0, description="How long a good login keeps its address from being slowed down."
    )
    forgiven_per_hour: int = Field(
        default=60, ge=0, description="Failures an hour that an address with a good login is forgiven."
    )
    gateway: bool = Field(
        default=True,
        description="Refuse to relay by [[relay]] when all clients seem to hide behind one private address (NAT).",
    )


class Rates(Section):
    """How much one client or account may do; 0 = no limit. [guard] trusted addresses are not counted."""

    connections_per_minute: int = Field(
        default=1_200, ge=0, description="New connections from one address (IPv6: one /64) a minute."
    )
    messages_per_hour: int = Field(
        default=2_000,
        ge=0,
        description="Messages of one account an hour; what is beyond is held in the queue.",
    )
    recipients_per_hour: int = Field(
        default=10_000,
        ge=0,
        description="Recipients of one account an hour; what is beyond is held in the queue.",
    )
    address_messages_per_hour: int = Field(
        default=0, ge=0, description="Messages of one address without a login an hour; then 450."
    )
    address_recipients_per_hour: int = Field(
        default=0, ge=0, description="Recipients of one address without a login an hour; then 450."
    )
    unknown_recipients_per_hour: int = Field(
        default=100,
        ge=0,
        description="Recipients one address may ask for that do not exist, an hour; then every recipient of it is "
        "answered 450 without a look-up. Who is logged in or may relay is not counted.",
    )


class Proxy(Section):
    """Load balancers that tell us the client's address by the PROXY protocol, version 1 or 2."""

    trusted: Annotated[tuple[str, ...], OneOrMore] = Field(
        default=(),
        description="Addresses or networks of the proxies; every connection from them begins with a header.",
    )
    listen: Listens = Field(
        default=(),
        description="Listeners for proxies only: others are turned away there, and no header is expected elsewhere.",
    )
    timeout: Duration = Field(default=5.0, description="How long the header may take.")


class Confine(Section):
    """What the kernel lets this process touch (Landlock, Linux 5.19 or newer)."""

    landlock: bool = Field(
        default=True,
        description="Write in data_dir only, read programs, configuration and certificates only.",
    )
    read: Annotated[tuple[Path, ...], OneOrMore] = Field(
        default=(), description="More files or folders to read, or to run programs from."
    )
    write: Annotated[tuple[Path, ...], OneOrMore] = Field(default=(), description="More folders to write in.")

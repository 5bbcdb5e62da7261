"""Every configuration key with its type, default and meaning: the one source of validation and
documentation.

The models are frozen; a running server holds one ``Config`` and swaps it whole at reload. ``description``
is what ``mailserver config describe`` and docs/configuration.md print. Sizes are octets, times seconds,
once parsed.
"""

from __future__ import annotations

import ipaddress
import math
import socket
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from mailserver.config.accounts import AccountSettings, Backend, Bearer
from mailserver.config.section import Listens, Section
from mailserver.config.trust import Confine, Guard, Proxy, Rates
from mailserver.config.units import Duration, OneOrMore, Retention, Size, SocketAddress


class Smtp(Section):
    """Mail from other servers (port 25)."""

    enabled: bool = Field(default=True, description="Whether these listeners are opened at all.")
    listen: Listens = Field(
        default=(SocketAddress("127.0.0.1", 2525),),
        description="Addresses to listen on; STARTTLS is offered.",
    )
    check_sender_domain: bool = Field(
        default=False,
        description="Refuse senders whose domain (none of ours) has no MX or address: 5.1.8, or a null MX: 5.7.27.",
    )
    refuse_our_name: bool = Field(
        default=True,
        description="Refuse strangers (550 5.7.1) who call themselves by our host name or address in EHLO. Not "
        "`guard.trusted`, `proxy.trusted` and whom a rule lets relay.",
    )
    refuse_early_talkers: bool = Field(
        default=True,
        description="Hang up (554 5.5.1) on strangers who speak before the greeting, or go on behind their first "
        "command before its answer. Not `guard.trusted`, `proxy.trusted` and whom a rule lets relay.",
    )
    greeting_delay: Duration = Field(
        default=0.0,
        description="How long such strangers wait for the greeting; 0: who has spoken by then is noticed all the same.",
    )


class Submission(Section):
    """Mail from our users, who log in (587 with STARTTLS, 465 with TLS from the start)."""

    enabled: bool = Field(default=True, description="Whether these listeners are opened at all.")
    listen: Listens = Field(default=(), description="Addresses with STARTTLS.")
    listen_tls: Listens = Field(default=(), description="Addresses with TLS from the first octet.")
    senders: dict[str, Annotated[tuple[str, ...], OneOrMore]] = Field(
        default_factory=dict,
        description='Account → senders it may use besides its own addresses: an address, "*@example.test" or "*".',
    )


class Lmtp(Section):
    """Mail handed over by another MTA (RFC 2033)."""

    enabled: bool = Field(default=True, description="Whether these listeners are opened at all.")
    listen: Listens = Field(default=(), description="Addresses to listen on; never port 25.")


class Pop3Account(Section):
    """What holds for one account; what is left out is as for all. Its address is the table's name."""

    login_delay: Duration | None = Field(default=None, description="Instead of pop3.login_delay.")
    expire: Retention | None = Field(default=None, description="Instead of pop3.expire.")


class Pop3(Section):
    """Mailboxes served to users (110 with STLS, 995 with TLS from the start)."""

    enabled: bool = Field(default=True, description="Whether these listeners are opened at all.")
    listen: Listens = Field(default=(SocketAddress("127.0.0.1", 2110),), description="Addresses with STLS.")
    listen_tls: Listens = Field(default=(), description="Addresses with TLS from the first octet.")
    allow_plaintext_login: bool = Field(
        default=False, description="Allow passwords without TLS from anywhere; loopback clients always may."
    )
    apop: bool = Field(
        default=False,
        description="Offer APOP to accounts whose password is kept in clear ({PLAIN}; see accounts.rehash). Programs "
        "may then try nothing else, for accounts that cannot use it, too.",
    )
    login_delay: Duration = Field(
        default=0.0, description="Least time between two logins of one account (LOGIN-DELAY); 0 = none."
    )
    expire: Retention = Field(
        default=math.inf,
        description="Age at which QUIT deletes mail, fetched or not (EXPIRE, in whole days); "
        '0 = whatever was fetched; "never" = only what the client deletes.',
    )
    without_utf8: Literal["convert", "as-is", "refuse"] = Field(
        default="convert",
        description="Mail that came by SMTPUTF8 with UTF-8 in its header, for clients that did not say UTF8 "
        "(RFC 6856): convert the header to ASCII (RFC 6858; what is stored stays as it is), send it as it is, or "
        "refuse it (-ERR [UTF8]).",
    )
    accounts: dict[str, Pop3Account] = Field(
        default_factory=dict, description="Accounts with terms of their own."
    )


class Certificate(Section):
    """One more certificate; clients that ask for a name in it (SNI, RFC 6066 3) are shown it."""

    certificate: Path = Field(
        description="PEM file with the certificate chain; *.example.test may be a name in it."
    )
    key: Path | None = Field(
        default=None, description="PEM file with the private key; absent: in the same file."
    )


class Tls(Section):
    """The server's certificate; without one a self-signed pair is made in data_dir/tls."""

    certificate: Path | None = Field(default=None, description="PEM file with the certificate chain.")
    key: Path | None = Field(default=None, description="PEM file with the private key.")
    client_ca: Path | None = Field(
        default=None,
        description="PEM file of authorities whose client certificates may log in (EXTERNAL); none: not asked for.",
    )
    certificates: tuple[Certificate, ...] = Field(
        default=(), description="More certificates, chosen by the name a client asks for; else the one above."
    )


class Dns(Section):
    """Name look-ups for delivery."""

    servers: Listens = Field(default=(), description="Resolvers to ask; none means the system's.")
    timeout: Duration = Field(default=5.0, description="How long one query may take.")


class Limits(Section):
    """Bounds that keep memory, connections and disk in hand."""

    message_size: Size = Field(
        default=50 << 20, description="Largest message accepted; what EHLO's SIZE announces."
    )
    idle_timeout: Duration = Field(
        default=300.0,
        description="Silence of a client before 421 (RFC 5321 4.5.3.2.7: 5 minutes). With POP3: before the login; "
        "after it at least 10 minutes (RFC 1939 3).",
    )
    data_timeout: Duration = Field(
        default=180.0, description="Silence within DATA (RFC 5321 4.5.3.2.5: 3 minutes)."
    )
    minimum_rate: int = Field(
        default=500,
        ge=1,
        description="Octets a second that a message must come with, over each data_timeout; slower is 421.",
    )
    session_timeout: Duration = Field(
        default=1800.0,
        description="How long a session may last without an accepted message; each minimum_rate octets add a "
        "second. With POP3: without a login.",
    )
    handshake_timeout: Duration = Field(default=30.0, description="How long a TLS handshake may take.")
    connections: int = Field(
        default=10_000, ge=1, description="Open connections per service, all clients together."
    )
    connections_per_address: int = Field(
        default=1_000, ge=1, description="Open connections per service from one address (IPv6: one /64)."
    )
    recipients: int = Field(
        default=1_000, ge=100, description="Recipients of one message (RFC 5321 4.5.3.1.8: at least 100)."
    )
    errors: int = Field(default=20, ge=1, description="Refused commands before a session is ended with 421.")
    messages_per_session: int = Field(
        default=10_000, ge=1, description="Messages one connection may send before 421."
    )
    body_memory: Size = Field(
        default=32 << 20, description="Memory for all messages being received; beyond it they stream to disk."
    )
    index_memory: Size = Field(
        default=64 << 20, description="Memory for mailbox indexes; the least recently used leave first."
    )
    disk_reserve: Size = Field(
        default=64 << 20, description="Free space below which MAIL is answered 452 4.3.1."
    )
    received_hops: int = Field(
        default=100, ge=10, description="Received headers before a message is taken for a loop (5.4.6)."
    )


class Queue(Section):
    """Mail that still has somewhere to go."""

    retry: Annotated[tuple[Duration, ...], OneOrMore] = Field(
        default=(300.0, 900.0, 3600.0, 10800.0), min_length=1,
        description="Waits between attempts; the last repeats. One value may stand alone.",
    )  # fmt: skip
    jitter: float = Field(default=0.1, ge=0, le=0.5, description="Random part of each wait, as a fraction.")
    max_age: Duration = Field(default=432_000.0, description="Age at which undelivered mail bounces.")
    delay_warning: Duration = Field(
        default=14_400.0, description="Age at which the sender is told of the delay; 0 = never."
    )
    concurrency: int = Field(
        default=100,
        ge=1,
        description="Deliveries under way at once, all destinations together. One that takes longer than 10 s "
        "no longer counts; four times as many may hang so.",
    )
    concurrency_per_destination: int = Field(
        default=20,
        ge=1,
        description="Most deliveries under way at once to one destination. It begins with 5; each that "
        "is answered allows one more, each that hangs one less.",
    )
    recipients_per_transaction: int = Field(default=100, ge=1, description="RCPTs sent in one transaction.")
    keep_connection: Duration = Field(
        default=5.0, description="How long an idle connection is kept for the next message."
    )
    connect_timeout: Duration = Field(
        default=30.0, description="How long a TCP connection may take to one address."
    )


class Log(Section):
    """Where events are written."""

    format: Literal["text", "json"] = Field(
        default="text", description="One line per event, for people or for programs."
    )
    target: str = Field(default="stderr", description='"stderr", or a file (relative to data_dir).')
    level: Literal["info", "warning", "error"] = Field(
        default="info", description="Least serious event written."
    )
    max_size: Size = Field(default=10 << 20, description="Size at which a log file is rotated.")
    keep: int = Field(default=5, ge=1, description="Rotated files kept beside the current one.")


class RelayRule(Section):
    """One rule of [[relay]]; the first that matches the client's address decides."""

    from_: str = Field(alias="from", description='Address, network, or prefix "10.1.2."; IPv4 or IPv6.')
    action: Literal["relay", "accept", "reject"] = Field(
        description="relay: may send anywhere; accept: to our domains only; reject: may not connect."
    )
    even_the_whole_internet: bool = Field(
        default=False, description='Must be true beside action = "relay" for a network as large as 0.0.0.0/0.'
    )


class Domain(Section):
    """One of our domains."""

    catch_all: str | None = Field(
        default=None, description="Mailbox or address for local parts that nothing else matches."
    )
    aliases: dict[str, Annotated[tuple[str, ...], OneOrMore]] = Field(
        default_factory=dict,
        description="Local part → one or several addresses; a bare name is of this domain.",
    )


class User(Section):
    """One account; its address is the table's name."""

    password: str = Field(
        description="A hash that `mailserver user hash` prints; {PLAIN}… is accepted with a warning."
    )


class Config(Section):
    """The whole file."""

    hostname: str = Field(
        default_factory=socket.gethostname, description="Our name in greetings, EHLO and Received headers."
    )
    data_dir: Path = Field(
        default=Path("data"), description="Everything we keep; relative to the configuration file."
    )
    postmaster: str | None = Field(
        default=None,
        description="Who gets the mail of role addresses (postmaster, abuse, …), here or elsewhere; the first account "
        "where absent.",
    )
    run_as: str | None = Field(
        default=None,
        description="User to become after binding, when started as root; required then, refused to be root.",
    )
    # {} is validated with the file: an instance here would build that table's validator when this is imported.
    smtp: Smtp = Field(default={}, validate_default=True)
    submission: Submission = Field(default={}, validate_default=True)
    lmtp: Lmtp = Field(default={}, validate_default=True)
    pop3: Pop3 = Field(default={}, validate_default=True)
    tls: Tls = Field(default={}, validate_default=True)
    dns: Dns = Field(default={}, validate_default=True)
    limits: Limits = Field(default={}, validate_default=True)
    queue: Queue = Field(default={}, validate_default=True)
    log: Log = Field(default={}, validate_default=True)
    relay: tuple[RelayRule, ...] = Field(
        default=(), description="Who may connect and relay; first match wins, default accept."
    )
    routes: dict[str, str] = Field(
        default_factory=dict,
        description='Where mail goes instead of the MX: smtp://, smtps://, lmtp://; "*" = the rest.',
    )
    domains: dict[str, Domain] = Field(default_factory=dict, description="Our domains.")
    users: dict[str, User] = Field(default_factory=dict, description="Accounts kept in this file.")
    guard: Guard = Field(
        default={},
        validate_default=True,
        description="Failed logins slow down; nobody is ever barred for good.",
    )
    rates: Rates = Field(
        default={},
        validate_default=True,
        description="How much one client or account may do; 0 = no limit. `guard.trusted` is not counted.",
    )
    proxy: Proxy = Field(
        default={},
        validate_default=True,
        description="Load balancers that tell us the client's address by the PROXY protocol, version 1 or 2.",
    )
    confine: Confine = Field(
        default={},
        validate_default=True,
        description="What the kernel lets this process touch (Landlock, Linux 5.19 or newer).",
    )
    accounts: AccountSettings = Field(
        default={},
        validate_default=True,
        description="How users show who they are, whatever the place that knows them.",
    )
    bearer: Bearer = Field(
        default=Bearer(),
        description="Logins by token (OAUTHBEARER, XOAUTH2), which a program of yours verifies.",
    )
    backends: dict[str, Backend] = Field(
        default_factory=dict,
        description="Accounts of whole domains that somebody else keeps, under a name for the log.",
    )

    def faces_network(self) -> bool:
        """Whether any listener can be reached from another machine, or has a port that needs a privilege."""
        sections = (self.smtp, self.submission, self.lmtp, self.pop3)
        addresses = [a for s in sections if s.enabled for a in (*s.listen, *getattr(s, "listen_tls", ()))]
        return any(not ipaddress.ip_address(a.host).is_loopback or 0 < a.port < 1024 for a in addresses)

"""The tables about accounts kept elsewhere and how logins work: [accounts], [backends."…"]."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mailserver.config.section import Section
from mailserver.config.units import Duration, OneOrMore


class AccountSettings(Section):
    """How users show who they are, whatever the place that knows them."""

    scram: Literal["auto", "always", "never"] = Field(
        default="auto",
        description="Offer SCRAM logins; auto: while every account has keys for it, since programs that see it "
        "offered try nothing else. Keys are made when a password is set, or at a login that shows it.",
    )
    channel_binding: bool = Field(
        default=False,
        description="Offer SCRAM-SHA-256-PLUS (tls-server-end-point). Programs with GNU SASL (mutt) insist on another "
        "kind of binding, tls-exporter, and then try nothing else.",
    )
    rehash: bool = Field(
        default=True,
        description="At a login, store the password of a database account anew where its hash has become weak.",
    )


class Bearer(Section):
    """Logins by token (OAUTHBEARER, XOAUTH2), which a program of yours verifies."""

    program: Annotated[tuple[str, ...], OneOrMore] = Field(
        default=(),
        description="The program and its arguments. It reads the token on descriptor 3, prints the account's address "
        "and ends with 0; with 1 where the token is no good, 111 when it cannot say. None: not offered.",
    )
    timeout: Duration = Field(default=5.0, description="How long one token may take.")
    concurrency: int = Field(default=4, ge=1, description="Tokens verified at once.")
    scope: str = Field(default="", description="What a token must be good for; told where one was refused.")
    discovery: str = Field(
        default="",
        description="Address of the OpenID discovery document; told where a token was refused (RFC 7628 3.2.2).",
    )


class Backend(Section):
    """Accounts of whole domains that somebody else keeps."""

    type: Literal["checkpassword", "postgresql"] = Field(description="What kind of place it is.")
    domains: Annotated[tuple[str, ...], OneOrMore] = Field(
        min_length=1, description="Domains whose accounts are there; they are domains of ours."
    )
    program: tuple[str, ...] = Field(
        default=(), description="checkpassword: the program and its arguments; it reads descriptor 3."
    )
    exists: tuple[str, ...] = Field(
        default=(),
        description="checkpassword: a command that ends with 0 where $ADDRESS is an account, 1 where not, 111 "
        "when it cannot say.",
    )
    user: Literal["address", "local"] = Field(
        default="address", description="checkpassword: what the program gets, alice@example.test or alice."
    )
    url: str | None = Field(
        default=None, description="postgresql: postgresql://user@host/database?passfile=/path and so on."
    )
    query: str = Field(
        default="SELECT password FROM users WHERE address = $1",
        description="postgresql: finds the stored form of the password of an address.",
    )
    timeout: Duration = Field(default=5.0, description="How long one question may take.")
    concurrency: int = Field(default=4, ge=1, description="Questions asked at once.")
    fresh: Duration = Field(default=300.0, description="How long an answer counts without asking again.")
    stale: Duration = Field(
        default=86_400.0,
        description="How long known users are served from memory while the backend cannot be asked.",
    )
    remember: int = Field(default=10_000, ge=1, description="Answers kept in memory.")

"""Certificates through running services: whose is shown, renewed on disk, and clients that log in by their own."""

from __future__ import annotations

import base64
import poplib
import re
import smtplib
import ssl
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

ALICE = "alice@example.test"
LISTENERS = """
[submission]
listen = ["127.0.0.1:0"]
listen_tls = ["127.0.0.1:0"]
[pop3]
listen = ["127.0.0.1:0"]
listen_tls = ["127.0.0.1:0"]
"""
BASE = 'hostname = "mail.example.test"\ndata_dir = "data"\n[smtp]\nlisten = ["127.0.0.1:0"]\n[log]\nformat = "json"\n'
WAYS = (("smtp", "smtp"), ("submission", "smtp"), ("pop3", "pop3"), ("submission-tls", ""), ("pop3-tls", ""))


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def site(server_factory: Callable[..., Any], authority: trustme.CA, tmp_path: Path) -> Any:
    """mail.example.test, and by name example.org and everything below it; clients of the authority may log in."""
    authority.cert_pem.write_to_path(tmp_path / "clients.pem")
    issue(authority, tmp_path / "first.pem", "mail.example.test")
    issue(authority, tmp_path / "second.pem", "example.org", "*.example.org")
    tls = """
[tls]
certificate = "first.pem"
key = "first.pem"
client_ca = "clients.pem"
[[tls.certificates]]
certificate = "second.pem"
"""
    return server_factory(LISTENERS + tls, base=BASE)


def issue(authority: trustme.CA, file: Path, *names: str) -> None:
    authority.issue_cert(*names).private_key_and_cert_chain_pem.write_to_path(str(file) + ".new")
    Path(str(file) + ".new").rename(file)


def shown(server: Any, listener: str, starttls: str, name: str | None) -> list[str]:
    """The names in the certificate that openssl sees there."""
    how = ["-starttls", starttls] if starttls else []
    sni = ["-servername", name] if name else ["-noservername"]
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{server.ports[listener]}", *how, *sni],
        input=b"", capture_output=True, check=False, timeout=20,
    )  # fmt: skip
    text = subprocess.run(
        ["openssl", "x509", "-noout", "-ext", "subjectAltName"],
        input=done.stdout,
        capture_output=True,
        check=True,
    )
    return re.findall(r"DNS:([^,\s]+)", text.stdout.decode())


@pytest.mark.parametrize(("listener", "starttls"), WAYS, ids=[way[0] for way in WAYS])
def test_the_certificate_of_the_name_asked_for(site: Any, listener: str, starttls: str) -> None:
    first, second = ["mail.example.test"], ["example.org", "*.example.org"]
    asked = {
        "mail.example.test": first,
        "example.org": second,
        "mail.example.org": second,
        "other.test": first,
    }
    assert {name: shown(site, listener, starttls, name) for name in asked} == asked
    assert shown(site, listener, starttls, None) == first


def test_a_file_replaced_on_disk_shows_without_a_reload_and_a_broken_one_does_not(
    site: Any, authority: trustme.CA
) -> None:
    folder = site.folder
    (folder / "first.pem").write_text("half a renewal")
    issue(authority, folder / "second.pem", "example.org", "renewed.example.org")

    def said() -> list[str]:
        return [e["text"] for e in site.events() if e.get("component") == "tls"]

    give_up = time.monotonic() + 30  # they are looked at every five seconds
    while not any("first.pem" in text for text in said()):
        assert time.monotonic() < give_up
        assert shown(site, "submission-tls", "", "example.org") == ["example.org", "*.example.org"]
    assert shown(site, "smtp", "smtp", "mail.example.test") == ["mail.example.test"]
    issue(authority, folder / "first.pem", "mail.example.test", "new.example.test")
    while shown(site, "submission-tls", "", "example.org") != ["example.org", "renewed.example.org"]:
        assert time.monotonic() < give_up
    for listener, starttls in WAYS:
        assert shown(site, listener, starttls, None) == ["mail.example.test", "new.example.test"]


def client(authority: trustme.CA, *addresses: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    authority.issue_cert(*addresses).configure_cert(context)
    return context


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize("implicit", [True, False], ids=["implicit", "starttls"])
def test_external_over_submission(site: Any, authority: trustme.CA, implicit: bool) -> None:
    def connection(context: ssl.SSLContext) -> smtplib.SMTP:
        smtp: smtplib.SMTP
        if implicit:
            smtp = smtplib.SMTP_SSL("127.0.0.1", site.ports["submission-tls"], context=context, timeout=20)
        else:
            smtp = smtplib.SMTP("127.0.0.1", site.ports["submission"], timeout=20)
            smtp.starttls(context=context)
        smtp.ehlo()
        return smtp

    with connection(client(authority, ALICE)) as smtp:
        assert "EXTERNAL" in smtp.esmtp_features["auth"].split()
        assert smtp.docmd("AUTH EXTERNAL " + b64("bob@example.test"))[0] == 535
        assert smtp.docmd("AUTH EXTERNAL =")[0] == 235
        smtp.sendmail(ALICE, ["bob@example.test"], "Subject: by certificate\r\n\r\nText\r\n")
    with connection(client(authority, ALICE, "info@example.test")) as smtp:
        assert smtp.docmd("AUTH EXTERNAL =")[0] == 535  # which of the two
        assert smtp.docmd("AUTH EXTERNAL")[0] == 334
        assert smtp.docmd(b64(ALICE))[0] == 235
    with connection(client(authority, "ghost@example.test")) as smtp:
        assert smtp.docmd("AUTH EXTERNAL =")[0] == 535
    with connection(client(authority, "mail.example.test")) as smtp:  # of the authority, and nobody's address
        assert "EXTERNAL" not in smtp.esmtp_features["auth"].split()
        assert smtp.docmd("AUTH EXTERNAL =")[0] == 504
    with pytest.raises((ssl.SSLError, OSError, smtplib.SMTPException)):
        connection(client(trustme.CA(), ALICE))
    (mail,) = (site.maildir("bob") / "new").iterdir()
    assert "with ESMTPSA id " in mail.read_text()


def test_external_over_pop3(site: Any, authority: trustme.CA) -> None:
    def box(context: ssl.SSLContext) -> poplib.POP3:
        return poplib.POP3_SSL("127.0.0.1", site.ports["pop3-tls"], context=context, timeout=20)

    known = box(client(authority, ALICE))
    assert "EXTERNAL" in known.capa()["SASL"]
    with pytest.raises(poplib.error_proto, match=r"\[AUTH\]"):
        known._shortcmd("AUTH EXTERNAL " + b64("bob@example.test"))
    assert known._shortcmd("AUTH EXTERNAL =") == b"+OK 0 messages"
    known.quit()
    stls = poplib.POP3("127.0.0.1", site.ports["pop3"], timeout=20)
    assert "EXTERNAL" not in stls.capa()["SASL"]
    stls.stls(context=client(authority, ALICE))
    assert stls._shortcmd("AUTH EXTERNAL =") == b"+OK 0 messages"
    stls.quit()


def test_other_servers_are_not_asked_for_a_certificate(site: Any, authority: trustme.CA) -> None:
    with site.smtp() as smtp:
        smtp.starttls(context=client(trustme.CA(), ALICE))  # of an authority nobody here knows
        smtp.ehlo()
        assert "EXTERNAL" not in smtp.esmtp_features["auth"].split()

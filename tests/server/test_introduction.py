"""The commands a new user is shown are the ones that work."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailserver.config.load import parse
from mailserver.introduction import introduction

BASE = 'hostname = "mail.example.test"\n'


def test_as_started_by_make_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", [".venv/bin/mailserver", "serve"])
    config = parse(BASE, "config.toml").config
    assert introduction(config, Path("config.toml"), "alice@example.test", "secret").splitlines()[3:] == [
        r"  send   printf 'Subject: hello\n\nIt works.\n' | .venv/bin/mailserver sendmail alice@example.test",
        "  read   curl -u alice@example.test:secret pop3://127.0.0.1:2110/1",
        "  queue  .venv/bin/mailserver queue list",
    ]


def test_another_file_wildcard_addresses_and_no_pop3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/opt/mailserver/bin/mailserver", "serve"])
    path = Path("/etc/mailserver/config.toml")
    config = parse(BASE + 'pop3.listen = ["[::]:110"]\n', "config.toml").config
    said = introduction(config, path, "alice@example.test", "secret")
    assert "pop3://[::1]:110/1" in said
    assert "/opt/mailserver/bin/mailserver queue list -c /etc/mailserver/config.toml" in said
    config = parse(BASE + "pop3.listen = []\n", "config.toml").config
    assert "curl" not in introduction(config, path, "alice@example.test", "secret")

"""The configuration and folders that this server gets for a load: the recipients and the route of the peers folder.

Everything else is the default configuration; only limits that are meant to stop a single client are raised.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.maildirs import make_boxes
from bench.places import BOXES, SINK_PORT
from mailserver.accounts.passwords import hash_password

OWNER = "vmail"  # the user that the peers folder makes


@dataclass(frozen=True)
class Site:
    """``port``: of SMTP; POP3 is 100 above, POP3 over TLS 200. ``scheme``: of the passwords ("secret")."""

    folder: Path
    port: int = 12561
    scheme: str = "plain"
    routes: tuple[tuple[str, int], ...] = (("relay.test", SINK_PORT),)  # domain, port on loopback
    more: str = ""  # tables added to the configuration

    @property
    def smtp(self) -> int:
        return self.port

    @property
    def pop3(self) -> int:
        return self.port + 100

    @property
    def pop3s(self) -> int:
        return self.port + 200

    @property
    def config(self) -> Path:
        return self.folder / "config.toml"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def mail(self) -> Path:
        return self.data / "mail" / "bench.test"

    def make(self, boxes: Iterable[str] = BOXES) -> None:
        """Afresh: what an earlier run left is removed."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.data.mkdir(parents=True)
        boxes = list(boxes)
        self.config.write_text(self._configuration(boxes))
        for folder in (self.folder, self.data, self.data / "mail", self.mail):
            folder.mkdir(exist_ok=True, mode=0o700)
            shutil.chown(folder, OWNER, OWNER)
        make_boxes(self.mail, boxes, OWNER)

    def _configuration(self, boxes: Sequence[str]) -> str:
        stored = hash_password("secret", self.scheme)
        routes = "\n".join(f'"{domain}" = "smtp://127.0.0.1:{port}"' for domain, port in self.routes)
        users = "\n".join(f'[users."{box}@bench.test"]\npassword = "{stored}"' for box in boxes)
        return f"""hostname = "ours.bench.test"
data_dir = "data"
run_as = "{OWNER}"
[smtp]
listen = ["127.0.0.1:{self.smtp}"]
[submission]
enabled = false
[pop3]
listen = ["127.0.0.1:{self.pop3}"]
listen_tls = ["127.0.0.1:{self.pop3s}"]
[log]
target = "mailserver.log"
[limits]
connections = 20000
connections_per_address = 20000
messages_per_session = 1000000
[[relay]]
from = "127.0.0.0/8"
action = "relay"
[routes]
{routes}
{self.more}
[domains."bench.test"]
{users}
"""

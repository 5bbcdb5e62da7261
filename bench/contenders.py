"""Who is loaded: this server, another checkout of it, peers, bare-protocol ceilings, or any server that runs already.

Each has a label, says what it speaks (words that the workloads ask for), and start()s.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench.child import Child
from bench.maildirs import make_boxes
from bench.meter import Meter
from bench.ours import Site
from bench.places import PEERS, PEERS_DIR, ROOT, RUN, CannotRunError

OURS = "mailserver"
# SMTP into files that can be counted, relaying, POP3, large messages over POP3, TLS
RELAYS, READS = {"smtp", "files", "relay"}, {"pop3", "retr"}
PEERS_SPEAK = {"dovecot": READS, "qmail": RELAYS | READS, "aiosmtpd": {"smtp", "files"}}


@dataclass(frozen=True)
class Server:
    """A running server: where it listens (host:port, "" = not), where it delivers, whose CPU and memory to count.

    ``durable``: False when nothing is written, so that nothing can be waited for. ``start_s``: exec to ready.
    """

    label: str
    mail: str
    meter: Meter
    smtp: str = ""
    pop3: str = ""
    pop3s: str = ""
    durable: bool = True
    start_s: float = 0.0


class Ours:
    """This project's server, or that of the checkout ``root``, on ``site``."""

    speaks = frozenset(RELAYS | READS | {"tls"})

    def __init__(self, label: str = OURS, site: Site | None = None, root: Path = ROOT) -> None:
        self.label, self.root = label, root
        self.site = site or Site(RUN / "ours")
        self._made = False
        self._child: Child | None = None

    def start(self) -> Server:
        if not self._made:
            self.site.make()
            self._made = True
        site = self.site
        command = ["mailserver", "serve", "-c", str(site.config)]
        self._child = Child(self.label, command, site.folder / "stderr", self.root)
        return Server(
            self.label, str(site.mail), self._child.meter, start_s=self._child.start_s,
            smtp=f"127.0.0.1:{site.smtp}", pop3=f"127.0.0.1:{site.pop3}", pop3s=f"127.0.0.1:{site.pop3s}",
        )  # fmt: skip

    def stop(self) -> None:
        if self._child is not None:
            self._child.stop()


class Ceiling:
    """What Python and uvloop could do at best: a bare protocol (bench/ceiling.py), durable or writing nothing."""

    def __init__(self, *, durable: bool) -> None:
        self.label, self.durable = "ceiling" if durable else "ceiling-volatile", durable
        self.speaks = frozenset({"smtp", "files"} if durable else {"smtp"})
        self._folder, self._port = RUN / self.label, 12601 if durable else 12602
        self._child: Child | None = None

    def start(self) -> Server:
        mail = self._folder / "mail"
        make_boxes(mail)
        options = [] if self.durable else ["--volatile"]
        command = ["bench.ceiling", str(self._port), str(mail), *options]
        self._child = Child(self.label, command, self._folder / "stderr")
        target = f"127.0.0.1:{self._port}"
        return Server(self.label, str(mail), self._child.meter, smtp=target, durable=self.durable)

    def stop(self) -> None:
        if self._child is not None:
            self._child.stop()


class Sendall:
    """How fast one process can send large messages at all (bench/sendall.py)."""

    label = "sendall"
    speaks = frozenset({"retr"})
    port = 12603

    def __init__(self) -> None:
        self._child: Child | None = None

    def start(self) -> Server:
        self._child = Child(self.label, ["bench.sendall", str(self.port)], RUN / "sendall.stderr")
        return Server(self.label, "", self._child.meter, pop3=f"127.0.0.1:{self.port}")

    def stop(self) -> None:
        if self._child is not None:
            self._child.stop()


class Peer:
    """A server of the peers folder: "postfix", "dovecot:fast". The sink for relayed mail is one, too."""

    def __init__(self, name: str) -> None:
        self.label = name
        self.name, _, variant = name.partition(":")
        self.variant = variant or "default"
        self.speaks = frozenset(PEERS_SPEAK.get(self.name, RELAYS))

    def start(self) -> Server:
        facts = dict(word.split("=", 1) for word in self._call("start").split() if "=" in word)
        address = f"127.0.0.1:{facts['port']}"
        pop3 = f"127.0.0.1:{facts.get('pop3', facts['port'])}" if "pop3" in self.speaks else ""
        return Server(self.label, facts["mail"], Meter(group=facts["cg"]), smtp=address, pop3=pop3)

    def stop(self) -> None:
        self._call("stop")

    def _call(self, verb: str) -> str:
        # The peer's processes keep inherited descriptors open, so its output goes to a file, not to a pipe.
        said = PEERS_DIR / f"{self.name}-{verb}.out"
        command = [str(PEERS / "peer.sh"), verb, self.name, self.variant]
        with said.open("w") as out:
            done = subprocess.run(command, check=False, stdout=out, stderr=out, timeout=120)
        if done.returncode:
            raise CannotRunError(f"{self.label} did not {verb}: {said.read_text().strip()[-300:]}")
        return said.read_text()


class Given:
    """A server that somebody else started, "label=x,smtp=host:port,pop3=host:port,mail=DIR,pid=N" (or cg=NAME).

    It knows the mailboxes of the peers folder below ``mail``; what is left out it does not speak.
    """

    def __init__(self, said: str) -> None:
        facts = dict(word.split("=", 1) for word in said.split(","))
        self.label = facts.get("label", "given")
        self.speaks = frozenset(
            (RELAYS if "smtp" in facts else set()) | (READS if "pop3" in facts else set())
        )
        meter = Meter(group=facts["cg"]) if "cg" in facts else Meter(pid=int(facts["pid"]))
        self._server = Server(
            self.label, facts["mail"], meter, smtp=facts.get("smtp", ""), pop3=facts.get("pop3", "")
        )

    def start(self) -> Server:
        return self._server

    def stop(self) -> None:
        """It is not ours to stop."""


Contender = Ours | Ceiling | Sendall | Peer | Given

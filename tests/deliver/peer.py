"""A scripted SMTP or LMTP server: the dialog is data.

``script``: what is said to "GREETING", a verb, or "." (the end of DATA): a reply without CRLF, or a list of
them used up one by one, the last for ever. "RCPT" may also be a dict from address to reply. DROP hangs up
instead, SILENT says nothing ever after; "DATA-DROP" in place of 354 takes some content and hangs up;
"WHILE-DATA" is said then, or amid every content.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field
from typing import Any

DROP, SILENT = "<drop>", "<silent>"
STANDARD = ("PIPELINING", "8BITMIME", "SIZE 1000000", "ENHANCEDSTATUSCODES", "DSN", "SMTPUTF8")


@dataclass
class Transaction:
    mail: str
    rcpts: list[str] = field(default_factory=list)
    content: bytes = b""


class Peer:
    """``messages`` received whole, ``said`` every command, ``connections`` opened so far."""

    def __init__(
        self,
        script: dict[str, Any] | None = None,
        *,
        offers: tuple[str, ...] = STANDARD,
        name: str = "peer.test",
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        implicit_tls: bool = False,
        lmtp: bool = False,
        chop: bool = False,
    ) -> None:
        self.script = {
            key: value.copy() if isinstance(value, list) else value for key, value in (script or {}).items()
        }
        self.offers, self.name, self.host, self.port = offers, name, host, port
        self.tls, self.implicit_tls, self.lmtp, self.chop = tls, implicit_tls, lmtp, chop
        self.messages: list[Transaction] = []
        self.said: list[str] = []
        self.bursts: list[int] = []  # commands in each read
        self.connections = 0
        self.open: set[Conversation] = set()
        self.quiet = asyncio.Event()  # no connection is open
        self.mail_came = asyncio.Event()

    async def __aenter__(self) -> Peer:
        loop = asyncio.get_running_loop()
        tls = self.tls if self.implicit_tls else None
        self.server = await loop.create_server(lambda: Conversation(self), self.host, self.port, ssl=tls)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: Any) -> None:
        self.server.close()
        for conversation in list(self.open):
            conversation.transport.abort()
        await self.server.wait_closed()
        await asyncio.sleep(0)

    @property
    def route(self) -> str:
        scheme = "lmtp" if self.lmtp else "smtps" if self.implicit_tls else "smtp"
        return f"{scheme}://{self.host}:{self.port}"

    def answer(self, key: str, default: str) -> str:
        value = self.script.get(key, default)
        if isinstance(value, list):
            return str(value.pop(0) if len(value) > 1 else value[0])
        return str(value)


class Conversation(asyncio.Protocol):
    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.buffer = b""
        self.in_data = self.mute = self.switching = False
        self.encrypted = peer.implicit_tls
        self.current: Transaction | None = None
        self.accepted: list[str] = []
        self.tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.peer.open.add(self)
        self.peer.quiet.clear()
        self.peer.connections += 1
        self.say(self.peer.answer("GREETING", f"220 {self.peer.name} ready"))

    def connection_lost(self, exc: Exception | None) -> None:
        self.peer.open.discard(self)
        if not self.peer.open:
            self.peer.quiet.set()

    def say(self, text: str) -> None:
        if text == DROP:
            self.transport.close()
        elif text == SILENT:
            self.mute = True
        elif not self.mute:
            data = text.encode("utf-8", "surrogateescape") + b"\r\n"
            for piece in [data[i : i + 1] for i in range(len(data))] if self.peer.chop else [data]:
                self.transport.write(piece)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        commands = 0
        if self.switching:
            return  # TLS is on already, only we do not have its transport yet
        while not self.transport.is_closing():
            if self.in_data:
                if not self.end_of_data():
                    break
                continue
            line, crlf, rest = self.buffer.partition(b"\r\n")
            if not crlf:
                break
            self.buffer = rest
            commands += 1
            self.command(line.decode())
        if commands:
            self.peer.bursts.append(commands)

    def end_of_data(self) -> bool:
        buffer = b"\r\n" + self.buffer
        end = buffer.find(b"\r\n.\r\n")
        if end < 0:
            if len(buffer) > 1000 and self.peer.script.keys() & {"DATA", "WHILE-DATA"}:
                self.say(self.peer.answer("WHILE-DATA", SILENT))
                if self.peer.script.get("DATA") == "DATA-DROP":
                    self.transport.close()
            return False
        self.in_data = False
        content, self.buffer = buffer[2 : end + 2], buffer[end + 5 :]
        assert self.current is not None
        self.current.content = (b"\r\n" + content).replace(b"\r\n.", b"\r\n")[2:]
        self.peer.messages.append(self.current)
        for _ in self.accepted if self.peer.lmtp else [0]:
            self.say(self.peer.answer(".", "250 2.0.0 taken"))
        self.current, self.accepted = None, []
        return True

    def command(self, line: str) -> None:
        self.peer.said.append(line)
        verb = line.split(" ", 1)[0].upper()
        getattr(self, f"on_{verb.lower()}", self.on_other)(line, verb)

    def on_ehlo(self, line: str, verb: str) -> None:
        offers = [*self.peer.offers]
        if self.peer.tls and not self.encrypted:
            offers.append("STARTTLS")
        lines = [self.peer.name, *offers]
        default = "\r\n".join(
            f"250{'-' if n < len(lines) - 1 else ' '}{text}" for n, text in enumerate(lines)
        )
        self.say(self.peer.answer(verb, default))

    on_lhlo = on_ehlo

    def on_other(self, line: str, verb: str) -> None:
        self.say(self.peer.answer(verb, "250 2.0.0 ok"))

    def on_quit(self, line: str, verb: str) -> None:
        self.say(self.peer.answer("QUIT", "221 2.0.0 bye"))
        self.transport.close()

    def on_starttls(self, line: str, verb: str) -> None:
        reply = self.peer.answer("STARTTLS", "220 2.0.0 go ahead")
        self.say(reply)
        if reply.startswith("220"):
            task = asyncio.get_running_loop().create_task(self.encrypt())
            self.tasks.add(task)

    async def encrypt(self) -> None:
        try:
            if "TLS" in self.peer.script:
                self.transport.write(b"this is no TLS record at all\r\n")
                return
            loop = asyncio.get_running_loop()
            self.encrypted = True
            self.switching = True
            self.transport = await loop.start_tls(self.transport, self, self.peer.tls, server_side=True)
            self.switching = False
            self.data_received(b"")
        except OSError:
            pass

    def on_mail(self, line: str, verb: str) -> None:
        self.peer.mail_came.set()
        reply = self.peer.answer("MAIL", "250 2.1.0 ok")
        self.current = Transaction(line) if reply.startswith("2") else None
        self.accepted = []
        self.say(reply)

    def on_rcpt(self, line: str, verb: str) -> None:
        script = self.peer.script.get("RCPT")
        if self.current is None:
            reply = "503 5.5.1 MAIL first"
        elif isinstance(script, dict):
            address = line[line.index("<") + 1 : line.index(">")]
            reply = script.get(address, "250 2.1.5 ok")
        else:
            reply = self.peer.answer("RCPT", "250 2.1.5 ok")
        if reply.startswith("2"):
            self.current.rcpts.append(line)  # type: ignore[union-attr]
            self.accepted.append(line)
        self.say(reply)

    def on_data(self, line: str, verb: str) -> None:
        reply = self.peer.answer("DATA", "354 go on" if self.accepted else "503 5.5.1 RCPT first")
        if reply == "DATA-DROP":
            reply = "354 go on"
        if reply.startswith("354"):
            self.in_data = True
            self.current = self.current or Transaction("")
        self.say(reply)

    def on_rset(self, line: str, verb: str) -> None:
        self.current, self.accepted = None, []
        self.on_other(line, verb)

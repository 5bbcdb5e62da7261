"""The ceiling of RETR: a POP3 look-alike that sends one large message from memory with sendall() and does nothing else.

python -m bench.sendall PORT
"""

from __future__ import annotations

import signal
import socket
import sys
import threading

from bench.mailbox import LARGE, LARGE_MESSAGES

LINE = b"X" * 76 + b"\r\n"
MESSAGE = b"+OK\r\n" + LINE * (LARGE // len(LINE)) + b".\r\n"


def converse(client: socket.socket) -> None:
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with client, client.makefile("rb") as lines:
        client.sendall(b"+OK sendall\r\n")
        for line in lines:
            verb = line[:4].upper()
            if verb == b"RETR":
                client.sendall(MESSAGE)
            elif verb == b"STAT":
                client.sendall(b"+OK %d %d\r\n" % (LARGE_MESSAGES, LARGE_MESSAGES * len(MESSAGE)))
            else:
                client.sendall(b"+OK\r\n")
            if verb == b"QUIT":
                return


def main(port: int) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with socket.create_server(("127.0.0.1", port)) as server:
        print("ready", file=sys.stderr, flush=True)
        while True:
            threading.Thread(target=converse, args=(server.accept()[0],), daemon=True).start()


if __name__ == "__main__":
    main(int(sys.argv[1]))

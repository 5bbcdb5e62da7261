"""2,000 slow clients and 5,000 idle ones, and one good client beside them: `python -m bench.siege`.

Prints what a whole SMTP transaction and a whole POP3 session take for the good client without the crowd and with it,
how much memory the crowd costs the server, and how many of the crowd were thrown out meanwhile. Ends with 1 when the
good client once waited longer than a second.
"""

from __future__ import annotations

import argparse
import poplib
import smtplib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from bench.contenders import OURS, Ours, Server
from bench.ours import Site
from bench.places import ROOT, RUN

PATIENCE = 1.0  # seconds a good client may have to wait
_MESSAGE = "From: <good@bench.test>\r\nTo: <u@bench.test>\r\nSubject: still here?\r\n\r\n" + "text\r\n" * 600


def send(server: Server) -> None:
    host, port = server.smtp.split(":")
    with smtplib.SMTP(host, int(port), local_hostname="good.test") as client:
        client.sendmail("good@bench.test", ["u@bench.test"], _MESSAGE)


def fetch(server: Server) -> None:
    host, port = server.pop3.split(":")
    client = poplib.POP3(host, int(port), timeout=30)
    client.user("1u@bench.test")
    client.pass_("secret")
    client.stat()
    client.quit()


def waits(work: Callable[[Server], None], server: Server, times: int) -> list[float]:
    """Seconds that each of ``times`` took, a tenth of a second apart."""
    taken = []
    for _ in range(times):
        time.sleep(0.1)
        began = time.monotonic()
        work(server)
        taken.append(time.monotonic() - began)
    return taken


def line(name: str, taken: list[float]) -> str:
    return f"{name:28} median {statistics.median(taken) * 1e3:6.1f} ms   worst {max(taken) * 1e3:6.1f} ms"


def main() -> int:
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--slow", type=int, default=2000)
    ap.add_argument("--idle", type=int, default=5000)
    ap.add_argument("--times", type=int, default=200, help="transactions of the good client")
    args = ap.parse_args()
    contender = Ours(OURS, Site(RUN / "siege"))
    server = contender.start()
    try:
        worst = besiege(server, args.slow, args.idle, args.times)
    finally:
        contender.stop()
    return int(worst > PATIENCE)


def besiege(server: Server, slow: int, idle: int, times: int) -> float:
    """The good client's longest wait, seconds."""
    for name, work in (("SMTP alone", send), ("POP3 alone", fetch)):
        print(line(name, waits(work, server, 20)))
    before = server.meter.pss()
    ports = [target.split(":")[1] for target in (server.smtp, server.pop3)]
    crowd = subprocess.Popen(
        [sys.executable, "-m", "bench.crowd", *ports, str(slow), str(idle)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert crowd.stdout is not None
        if crowd.stdout.readline() != "ready\n":
            raise SystemExit("the crowd could not connect")
        taken = {name: waits(work, server, times) for name, work in (("SMTP", send), ("POP3", fetch))}
        after = server.meter.pss()
        lost = crowd.communicate("")[0].strip()
    finally:
        crowd.kill()
    for name, seconds in taken.items():
        print(line(f"{name} beside {slow} slow, {idle} idle", seconds))
    each = (after - before) * 1e6 / 1024 / (slow + idle)
    print(
        f"memory {before:.0f} MB, with the crowd {after:.0f} MB: {each:.1f} KiB for each; {lost} thrown out"
    )
    return max(map(max, taken.values()))


if __name__ == "__main__":
    sys.exit(main())

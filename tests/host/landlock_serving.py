"""A process that test_landlock.py starts: argv[1] is the site's folder. What the server does works, confined."""

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mailserver.accounts.database import Database
from mailserver.config.load import load
from mailserver.events import Notice
from mailserver.host.confinement import confine
from mailserver.observe.log import Log
from mailserver.store.durable import Durable, Job, NewFile
from mailserver.store.index import Mailboxes
from mailserver.store.workers import Workers

site = Path(sys.argv[1])
path = site / "etc" / "config.toml"
config = load(path).config
data = config.data_dir
said = confine(config, path)
assert said.active, said.text
print(said.text)


def hello(folder, name):
    return Job((NewFile((b"hello\n",), f"{folder}/tmp/{name}", (f"{folder}/new/{name}",)),))


async def deliver():
    """Alone, many together, a hard link, a move between folders, a removal."""
    loop = asyncio.get_running_loop()
    durable, workers = Durable(loop), Workers(loop, ThreadPoolExecutor(2))
    mailboxes = Mailboxes(str(data / "mail"), hostname="x", memory=1 << 20, workers=workers)
    folder, other = await mailboxes.ensure("alice@example.test"), await mailboxes.ensure("bob@example.test")
    first = mailboxes.new_name(time.time(), 6, 7)
    await durable.commit(hello(folder, first))
    await asyncio.gather(*(durable.commit(hello(folder, f"n{n}")) for n in range(50)))
    both = NewFile((b"hello\n",), f"{folder}/tmp/both", (f"{folder}/new/both", f"{other}/new/both"))
    await durable.commit(Job((both,)))
    os.rename(f"{folder}/new/{first}", f"{folder}/cur/{first}:2,S")
    await durable.commit(Job(remove=(f"{folder}/new/n1",)))
    durable.close()
    workers.close()
    return len(os.listdir(f"{folder}/new"))


database = Database(str(data / "accounts.sqlite"))
database.add_domain("example.test", 1.0)
database.add_user("alice@example.test", "$argon2id$x", 1.0)
assert [user.address for user in database.users()] == ["alice@example.test"]
database.close()

assert asyncio.run(deliver()) == 50

log = Log(config.log, str(data))
log.write(Notice("test", "still here"))
log.close()
assert "still here" in (data / "mail.log").read_text()

(data / "linked" / "y").write_text("another disk")
with tempfile.TemporaryFile() as scratch:
    scratch.write(b"x")

unix = socket.socket(socket.AF_UNIX)
unix.bind(str(data / "control.sock"))
unix.listen()
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(server.getsockname()).close()
assert socket.getaddrinfo("localhost", 25)

assert load(path).config == config
assert (site / "etc" / "pem" / "a.pem").read_text() == "certificate"
assert Path("/proc/net/tcp").read_text()
assert subprocess.run(["/bin/sh", "-c", "cat /etc/passwd > /dev/null"], check=False).returncode == 0
__import__("xml.dom.minidom")

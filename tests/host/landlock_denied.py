"""A process that test_landlock.py starts: argv[1] is the site's folder. Everything outside data_dir is denied."""

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

from mailserver.config.load import load
from mailserver.host.confinement import confine

site = Path(sys.argv[1])
outside, path = site / "elsewhere", site / "etc" / "config.toml"
config = load(path).config
data = config.data_dir
assert (outside / "there").read_text() == "secret"
said = confine(config, path)
assert said.active, said.text


def denied(action):
    try:
        action()
    except OSError as error:  # EXDEV is what Landlock says to moves across its border
        assert error.errno in (errno.EACCES, errno.EPERM, errno.EXDEV), error
    else:
        raise AssertionError("it was allowed")


ATTEMPTS = (
    lambda: (outside / "new").write_text("x"),
    lambda: (outside / "there").write_text("x"),
    (outside / "there").read_text,
    lambda: os.truncate(outside / "there", 0),
    (outside / "there").unlink,
    lambda: os.listdir(outside),
    lambda: os.mkdir(outside / "folder"),
    lambda: os.rename(outside / "there", data / "stolen"),
    lambda: os.rename(data / "linked", outside / "linked"),
    lambda: os.link(outside / "there", data / "stolen"),
    lambda: os.symlink("x", outside / "link"),
    (data / "way-out").read_text,
    lambda: Path("/tmp/mailserver-was-here").write_text("x"),
    lambda: Path("/etc/mailserver-was-here").write_text("x"),
    lambda: path.write_text("x"),
)
for attempt in ATTEMPTS:
    denied(attempt)

script = data / "script"
script.write_text("#!/bin/sh\n")
script.chmod(0o700)
denied(lambda: subprocess.run([str(script)], check=False))

in_thread = []
thread = threading.Thread(target=lambda: in_thread.append(denied(ATTEMPTS[0])))
thread.start()
thread.join()
assert in_thread == [None]

child = subprocess.run(["/bin/sh", "-c", f"echo x > {outside}/new"], stderr=subprocess.PIPE, check=False)
assert child.returncode != 0
assert b"ermission denied" in child.stderr

"""The kernel's fence: what the server needs works, all else is denied, to threads and children too."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mailserver.config.load import parse
from mailserver.host import landlock
from mailserver.host.confinement import needed

PROJECT = Path(__file__).resolve().parents[2]
WITHOUT = "this kernel has no Landlock that allows renames between folders (ABI 2)"
confined = pytest.mark.skipif(landlock.abi() < landlock.ABI_NEEDED, reason=WITHOUT)

HERE = Path(__file__).parent
CONFIG = """\
hostname = "mail.example.test"
[log]
target = "mail.log"
[tls]
certificate = "pem/a.pem"
key = "pem/a.pem"
[domains."example.test"]
"""


@pytest.fixture
def site(tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "disk2").mkdir()
    (tmp_path / "disk2" / "x").write_text("still here")
    (tmp_path / "etc" / "data").mkdir(mode=0o700)
    (tmp_path / "etc" / "data" / "linked").symlink_to(tmp_path / "disk2")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "there").write_text("secret")
    (tmp_path / "etc" / "data" / "way-out").symlink_to(tmp_path / "elsewhere" / "there")
    (tmp_path / "etc" / "pem").mkdir()
    (tmp_path / "etc" / "pem" / "a.pem").write_text("certificate")
    (tmp_path / "etc" / "config.toml").write_text(CONFIG)
    return tmp_path


def run(program, site):
    """A process of its own: what is taken away does not come back."""
    command = [
        sys.executable,
        *([str(HERE / program)] if program.endswith(".py") else ["-c", program]),
        str(site),
    ]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    return subprocess.run(
        command, env=environment, cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False
    )


@confined
def test_everything_outside_is_denied(site):
    done = run("landlock_denied.py", site)
    assert done.returncode == 0, done.stderr
    assert (site / "elsewhere" / "there").read_text() == "secret"
    assert os.listdir(site / "elsewhere") == ["there"]


@confined
def test_everything_the_server_does_still_works(site):
    done = run("landlock_serving.py", site)
    assert done.returncode == 0, done.stderr
    assert "writes to " in done.stdout
    assert str(site / "disk2") in done.stdout


CONFINE = """
import sys, threading, time
from pathlib import Path
from mailserver.config.load import load
from mailserver.host import landlock
from mailserver.host.confinement import confine
site = Path(sys.argv[1])
BEFORE
said = confine(load(site / "etc/config.toml").config, site / "etc/config.toml")
(site / "elsewhere/new").write_text("x")
print(said)
"""


@pytest.mark.parametrize(
    ("before", "said"),
    [
        ("landlock.abi = lambda: 0", "Linux 5.19"),
        ("landlock.abi = lambda: 1", "ABI 1 only"),
        pytest.param(
            "threading.Thread(target=time.sleep, args=(1,)).start()", "threads exist already", marks=confined
        ),
    ],
)
def test_where_it_cannot_be_it_says_so_and_goes_on(site, before, said):
    done = run(CONFINE.replace("BEFORE", before), site)
    assert done.returncode == 0, done.stderr
    assert "active=False, wanted=True" in done.stdout
    assert said in done.stdout


def test_it_can_be_switched_off(site):
    (site / "etc" / "config.toml").write_text(CONFIG + "[confine]\nlandlock = false\n")
    done = run(CONFINE.replace("BEFORE", ""), site)
    assert "active=False, wanted=False" in done.stdout, done.stderr


def test_places_follow_links_as_certbot_makes_them(tmp_path):
    live, archive = tmp_path / "live" / "x", tmp_path / "archive" / "x"
    live.mkdir(parents=True)
    archive.mkdir(parents=True)
    (archive / "cert1.pem").write_text("")
    (live / "cert.pem").symlink_to(archive / "cert1.pem")
    text = (
        f'hostname = "mail.example.test"\n[tls]\ncertificate = "{live}/cert.pem"\nkey = "{live}/cert.pem"\n'
    )
    config = parse(text, "c.toml", base=tmp_path).config
    places = needed(config, tmp_path / "conf" / "c.toml")
    assert {str(live), str(archive), str(tmp_path / "conf")} <= set(places.read)
    assert places.write[0] == str(tmp_path / "data")
    assert str(tmp_path) not in places.read


def test_programs_and_files_of_account_backends_are_in(tmp_path):
    (tmp_path / "passwords").write_text("")
    text = f'''hostname = "mail.example.test"
[backends.old]
type = "checkpassword"
domains = "old.test"
program = ["{tmp_path}/qmail/checkpassword", "/bin/true"]
exists = ["/usr/local/bin/has-mailbox"]
[backends.new]
type = "postgresql"
domains = "new.test"
url = "postgresql://mail@db.test/mail?passfile={tmp_path}/passwords"
'''
    places = needed(parse(text, "c.toml", base=tmp_path / "x").config, tmp_path / "conf" / "c.toml")
    assert {str(tmp_path / "qmail"), "/bin"} <= set(places.run)
    assert str(tmp_path) in places.read
    assert str(tmp_path) not in places.run

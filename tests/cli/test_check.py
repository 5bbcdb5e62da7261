"""`mailserver check`: what only the machine can tell, each fault with file, line, key and what would be right."""

from __future__ import annotations

import datetime
import json
import os
import pwd
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from mailserver.host.pem import pair_faults

Run = Callable[..., Any]
HEAD = 'hostname = "mail.example.test"\n'
NO_LISTENERS = "[smtp]\nlisten = []\n[pop3]\nlisten = []\n"
ROOT = os.geteuid() == 0


@pytest.fixture
def check(run: Run, tmp_path: Path) -> Callable[..., Any]:
    """check(text) → the faults, one line each, of a configuration that begins with a good first line."""

    def faults(text: str, code: int = 2) -> list[str]:
        (tmp_path / "config.toml").write_text(HEAD + text)
        done = run("check")
        assert done.returncode == code, done.stderr
        return list(done.stderr.splitlines())

    return faults


def issued(folder: Path, name: str, **kwargs: Any) -> None:
    """folder/NAME.pem, the certificate, and folder/NAME.key."""
    pair = trustme.CA().issue_cert(f"{name}.test", **kwargs)
    pair.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
    pair.private_key_pem.write_to_path(folder / f"{name}.key")
    (folder / f"{name}.key").chmod(0o600)


def tls(certificate: str, key: str) -> str:
    return f'{NO_LISTENERS}[tls]\ncertificate = "{certificate}"\nkey = "{key}"\n'


def test_a_pair_that_fits_is_no_fault(check: Run, tmp_path: Path) -> None:
    issued(tmp_path, "a")
    assert check(tls("a.pem", "a.key"), 0) == []


def test_every_unusable_certificate_and_key_is_told_at_once(check: Run, tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d"):
        issued(tmp_path, name)
    locked = tmp_path / "locked.key"
    subprocess.run(
        ["openssl", "pkey", "-in", tmp_path / "d.key", "-aes256", "-passout", "pass:x", "-out", locked],
        check=True, capture_output=True,
    )  # fmt: skip
    torn = (tmp_path / "c.pem").read_text()
    (tmp_path / "torn.pem").write_text(torn[:200] + torn[230:])
    lines = check(
        tls("none.pem", "b.key")
        + 'client_ca = "a.key"\n'
        + "".join(
            f'[[tls.certificates]]\ncertificate = "{c}.pem"\nkey = "{k}.key"\n'
            for c, k in (("a", "b"), ("torn", "c"), ("d", "locked"))
        )
    )
    expected = [
        (7, "tls.certificate", "none.pem: cannot be read (no such file or directory)"),
        (9, "tls.client_ca", "a.key: there is no PEM certificate in it"),
        (
            12,
            "tls.certificates[1].key",
            f"b.key: the key does not belong to the certificate {tmp_path}/a.pem",
        ),
        (14, "tls.certificates[2].certificate", "torn.pem: a certificate in it is damaged"),
        (18, "tls.certificates[3].key", "locked.key: the key has a passphrase"),
    ]
    assert len(lines) == len(expected)
    for line, (number, key, wrong) in zip(lines, expected, strict=True):
        assert line.startswith(f"config.toml:{number}: {key}: {tmp_path}/{wrong}")
        assert line.count(", ") >= 1


def test_an_ended_certificate_is_a_warning(check: Run, tmp_path: Path) -> None:
    ended = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=2)
    issued(tmp_path, "old", not_before=ended - datetime.timedelta(days=9), not_after=ended)
    (line,) = check(tls("old.pem", "old.key"), 0)
    assert line.startswith(
        f"warning: config.toml:7: tls.certificate: {tmp_path}/old.pem: ended on {ended:%Y-%m-%d}"
    )
    later = ended + datetime.timedelta(days=900)
    pair = (str(tmp_path / "old.pem"), str(tmp_path / "old.key"))
    assert [fault.warning for fault in pair_faults(*pair, later)] == [True]
    assert list(pair_faults(*pair, ended - datetime.timedelta(hours=1))) == []


def test_the_start_and_a_reload_name_the_file_and_the_key(
    server_factory: Callable[..., Any], tmp_path: Path
) -> None:
    for name in ("a", "b"):
        issued(tmp_path, name)
    text = '[tls]\ncertificate = "a.pem"\nkey = "a.key"\n'
    server = server_factory(text)
    whole = server.config_file.read_text()
    server.config_file.write_text(whole.replace("a.key", "b.key"))
    refused = server.run("reload")
    wrong = f"{tmp_path}/b.key: the key does not belong to the certificate {tmp_path}/a.pem"
    assert refused.returncode == 1
    assert f"config.toml:11: tls.key: {wrong}" in refused.stderr
    server.stop()
    started = server.run("serve")
    assert started.returncode == 2
    assert f"config.toml:11: tls.key: {wrong}" in started.stderr


def test_a_user_to_run_as_must_be_there(check: Run) -> None:
    (line,) = check(f'run_as = "no-such-user"\n{NO_LISTENERS}')
    assert line == (
        "config.toml:2: run_as: there is no user 'no-such-user', `useradd --system no-such-user` makes one"
    )
    assert len(check(f'run_as = "root"\n{NO_LISTENERS}')) == 1


def test_a_data_dir_must_be_a_folder(check: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for value in ("file", "file/below"):
        (line,) = check(f'data_dir = "{value}"\n{NO_LISTENERS}')
        assert line.startswith(f"config.toml:2: data_dir: {tmp_path}/file is no folder, ")


@pytest.mark.skipif(not ROOT, reason="only root gives folders away")
def test_a_data_dir_of_somebody_else_is_told(check: Run, tmp_path: Path) -> None:
    def told(text: str, code: int = 2) -> list[str]:
        return [
            line for line in check(text, code) if "a reload will fail" not in line
        ]  # this folder is root's

    (tmp_path / "data").mkdir(mode=0o700)
    text = f'run_as = "nobody"\n{NO_LISTENERS}'
    assert told(text, 0) == []  # root's is given to nobody at the start
    os.chown(tmp_path / "data", pwd.getpwnam("daemon").pw_uid, -1)
    (line,) = told(text)
    assert line.startswith(f"config.toml:1: data_dir: {tmp_path}/data belongs to daemon, ")
    assert f"would run as nobody, `chown -R nobody {tmp_path}/data`" in line
    os.chown(tmp_path / "data", pwd.getpwnam("nobody").pw_uid, -1)
    assert told(text, 0) == []
    (tmp_path / "data").chmod(0o500)
    (line,) = told(text)
    assert line.endswith(f"data: its owner may not write there, `chmod u+rwx {tmp_path}/data`")


@pytest.mark.skipif(not ROOT, reason="only root may read what the server's user may not")
def test_files_that_are_read_again_must_be_readable_for_the_ordinary_user(check: Run) -> None:
    """Root reads them at the start; a renewed certificate would never be taken over."""
    with tempfile.TemporaryDirectory(prefix="mailserver-check-") as name:  # not in a folder of root's alone
        folder = Path(name)
        folder.chmod(0o755)
        issued(folder, "a")
        text = 'run_as = "nobody"\n' + tls(f"{folder}/a.pem", f"{folder}/a.key")
        told = [line for line in check(text, 0) if str(folder) in line]
        assert len(told) == 1
        assert "a.key: nobody may not read it, a renewal will fail, let nobody read it" in told[0]
        os.chown(folder / "a.key", pwd.getpwnam("nobody").pw_uid, -1)
        assert [line for line in check(text, 0) if f"{folder}/a" in line and "renewal" in line] == []
        folder.chmod(0o700)
        assert len([line for line in check(text, 0) if "a renewal will fail" in line]) == 2


@pytest.mark.skipif(not ROOT, reason="needs root, to become an ordinary user")
def test_a_data_dir_that_an_ordinary_user_cannot_make_is_told(tmp_path: Path) -> None:
    script = """
import os, sys
from mailserver.config.schema import Config
from mailserver.host.surroundings import everything
from pathlib import Path
wanted = [Config(hostname="h.test", data_dir=Path(place)) for place in sys.argv[1:]]
os.setgroups([]); os.setgid(65534); os.setuid(65534)
for config in wanted:
    for one in everything(Path("/nowhere"), None)(config):
        print(one.wrong)
"""
    for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        folder.chmod(folder.stat().st_mode | stat.S_IXOTH)
    (tmp_path / "theirs").mkdir(mode=0o755)
    (tmp_path / "open").mkdir(mode=0o777)
    (tmp_path / "open").chmod(0o777)
    places = [str(tmp_path / name) for name in ("theirs", "theirs/data", "open/data")]
    done = subprocess.run([sys.executable, "-c", script, *places], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        f"{places[0]} belongs to root, the server would run as nobody",
        f"{places[1]} cannot be made: nobody may not write in {places[0]}",
    ]


def test_addresses_that_cannot_be_listened_on_are_told(check: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        lines = check(f'[smtp]\nlisten = ["127.0.0.1:0", "{taken}"]\n[pop3]\nlisten = "192.0.2.1:2110"\n')
    assert lines[0].startswith(f"config.toml:3: smtp.listen[2]: {taken}: the port is in use by ")
    assert f"(pid {os.getpid()}), " in lines[0]
    assert lines[1].startswith(
        "config.toml:5: pop3.listen: 192.0.2.1:2110: this machine has no such address, "
    )
    assert len(lines) == 2


def test_the_running_server_is_not_in_its_own_way(server_factory: Callable[..., Any], free_port: Run) -> None:
    port = free_port()
    base = f'hostname = "mail.example.test"\n[smtp]\nlisten = ["127.0.0.1:{port}"]\n[pop3]\nlisten = []\n'
    server = server_factory(base=base + '[log]\nformat = "json"\n')
    assert server.run("check").returncode == 0
    with socket.create_server(("127.0.0.1", 0)) as other:
        added = f'"127.0.0.1:{other.getsockname()[1]}"'
        text = server.config_file.read_text()
        server.config_file.write_text(text.replace(f'"127.0.0.1:{port}"', f'"127.0.0.1:{port}", {added}'))
        done = server.run("check")
    assert (done.returncode, len([x for x in done.stderr.splitlines() if ": smtp.listen[2]: " in x])) == (
        2,
        1,
    )


def test_faults_of_the_file_and_of_the_machine_come_together_and_as_json(run: Run, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(
        'hostname = "h"\nrun_as = "no-such-user"\n[queue]\nretry = "soon"\n' + NO_LISTENERS + "[tls]\n"
        'certificate = "none.pem"\nkey = "none.key"\n'
    )
    done = run("check", "--json")
    assert done.returncode == 2
    assert done.stderr == ""
    told = json.loads(done.stdout)
    assert [(f["line"], f["key"]) for f in told["faults"]] == [
        (2, "run_as"), (4, "queue.retry"), (10, "tls.certificate"), (11, "tls.key"),
    ]  # fmt: skip
    assert all(f["file"] == "config.toml" and f["wrong"] and f["right"] for f in told["faults"])
    assert [w["key"] for w in told["warnings"]] == ["hostname"]


def test_a_loop_through_an_alias_of_the_database_is_found(check: Run, run: Run, tmp_path: Path) -> None:
    text = f'{NO_LISTENERS}[domains."a.test".aliases]\nteam = "alice"\n'
    check(text)  # alice is missing
    assert run("user", "add", "alice@a.test", "--password-stdin", stdin="x\n").returncode == 0
    assert check(text, 0) == []
    assert run("alias", "set", "more@a.test", "team").returncode == 0
    (line,) = check(text.replace('"alice"', '"more"'))
    loop = "a loop: team@a.test → more@a.test → team@a.test"
    assert line == f'config.toml:7: domains."a.test".aliases.team: {loop}, let one of them end at a mailbox'


def test_a_data_dir_cannot_change_while_the_server_runs(server: Any, tmp_path: Path) -> None:
    text = server.config_file.read_text()
    server.config_file.write_text(text.replace('data_dir = "data"', 'data_dir = "other"'))
    refused = server.run("reload")
    assert refused.returncode == 1
    assert refused.stderr == (
        f"mailserver: {server.config_file}:2: data_dir: cannot change while the server runs, {tmp_path}/data stays in "
        "force, restart the server, or put the old value back\n"
    )
    assert json.loads(server.run("status", "--json").stdout)["running"] is True
    assert not (tmp_path / "other").exists()
    assert server.run("stop").returncode == 0
    assert server.run("reload").returncode == 1
    assert "not running" in server.run("reload").stderr


def test_programs_that_are_none(check: Run, tmp_path: Path) -> None:
    script = tmp_path / "whose-token"
    script.write_text("#!/bin/sh\n")
    text = (
        f'{NO_LISTENERS}[bearer]\nprogram = "{script}"\n[domains."prog.test"]\n[backends.one]\n'
        'type = "checkpassword"\ndomains = "prog.test"\nprogram = ["no-such-checkpassword"]\nexists = ["true"]\n'
    )
    right = "name one that the server's user may run"
    assert check(text) == [
        f"config.toml:7: bearer.program: {script} is no program, {right}",
        f"config.toml:12: backends.one.program: no-such-checkpassword is no program, {right}",
    ]
    script.chmod(0o755)
    assert check(text.replace("no-such-checkpassword", "sh"), 0) == []

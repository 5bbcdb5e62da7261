"""Root is given up for good, by real processes."""

import os
import pwd
import subprocess
import sys
import textwrap

import pytest

from mailserver.host import privileges

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to have privileges to drop")
IMPORTS = "import os, json\nfrom mailserver.host import privileges\n"


def run(script):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORTS + textwrap.dedent(script)],
        capture_output=True,
        text=True,
        check=False,
    )


@root_only
def test_after_the_drop_there_is_no_way_back(tmp_path):
    nobody = pwd.getpwnam("nobody")
    done = run(f"""
        assert privileges.drop("nobody", {str(tmp_path / "data")!r}) is True
        assert os.getresuid() == ({nobody.pw_uid},) * 3 and os.getresgid() == ({nobody.pw_gid},) * 3
        assert 0 not in os.getgroups()
        for call in (os.setuid, os.setgid, os.seteuid):
            try:
                call(0)
            except PermissionError:
                continue
            raise SystemExit("root again")
        print(open("/proc/self/status").read())
        print("HOME", os.environ["HOME"], os.environ["USER"], os.environ["LOGNAME"])
    """)
    assert done.returncode == 0, done.stderr
    assert (
        f"HOME {nobody.pw_dir} nobody nobody" in done.stdout
    )  # root's home is closed to whoever looks for ~
    for name in ("CapPrm", "CapEff", "CapAmb"):
        assert f"{name}:\t0000000000000000" in done.stdout
    assert (tmp_path / "data").stat().st_uid == nobody.pw_uid


@root_only
def test_data_that_root_made_is_given_away_but_nothing_reached_by_links(tmp_path):
    nobody = pwd.getpwnam("nobody").pw_uid
    data, secret = tmp_path / "data", tmp_path / "secret"
    (data / "tls").mkdir(parents=True)
    (data / "mail" / "theirs" / "deep").mkdir(parents=True)
    for path in (
        secret,
        data / "accounts.db",
        data / "tls" / "key.pem",
        data / "mail" / "theirs" / "deep" / "m",
    ):
        path.write_text("")
    os.symlink(secret, data / "link")
    os.link(secret, data / "second-name")
    os.chown(data / "mail" / "theirs", nobody, -1)
    assert run(f"privileges.drop('nobody', {str(data)!r})").returncode == 0
    given = (data, data / "accounts.db", data / "tls", data / "tls" / "key.pem", data / "mail")
    assert [path.stat().st_uid for path in given] == [nobody] * 5
    assert secret.stat().st_uid == 0
    assert (
        data / "mail" / "theirs" / "deep" / "m"
    ).stat().st_uid == 0  # not looked at: costs nothing per message


@root_only
@pytest.mark.parametrize(
    ("run_as", "complaint"),
    [
        (None, "started as root without run_as"),
        ("root", "is root"),
        ("0", "is root"),
        ("no-such-user", "there is no user 'no-such-user'"),
    ],
)
def test_root_is_refused_with_a_sentence_that_helps(run_as, complaint):
    with pytest.raises(privileges.PrivilegeError, match=complaint):
        privileges.drop(run_as)
    assert os.geteuid() == 0


@root_only
def test_an_ordinary_user_has_nothing_to_drop():
    done = run("os.setuid(65534); print(privileges.drop(None), privileges.drop('root'))")
    assert done.stdout == "False False\n"


def test_no_new_privs_is_seen_by_the_kernel_and_by_later_threads():
    done = run("""
        import threading
        privileges.no_new_privs()
        show = lambda: print(open("/proc/thread-self/status").read())
        show()
        thread = threading.Thread(target=show)
        thread.start()
        thread.join()
    """)
    assert done.stdout.count("NoNewPrivs:\t1") == 2, done.stderr

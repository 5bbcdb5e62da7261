"""Files with secrets that others may read are found; those as the server makes them are not."""

import os

import pytest

from mailserver.config.load import parse
from mailserver.host.secrets import exposed

USERS = '[users."alice@example.test"]\npassword = "$argon2id$v=19$m=19456,t=2,p=1$bm8$aGFzaA"\n'
TEXT = 'hostname = "mail.example.test"\n[domains."example.test"]\n'


@pytest.fixture
def site(tmp_path):
    """site(users=…, mode=…) → the findings of a server whose files have safe modes but for those given."""
    for name in ("mail", "queue", "tls"):
        (tmp_path / "data" / name).mkdir(mode=0o700, parents=True)

    def findings(changes, text=TEXT + USERS):
        path = tmp_path / "config.toml"
        path.write_text(text)
        path.chmod(0o640)
        for name in ("accounts.sqlite", "accounts.sqlite-wal", "control.sock", "tls/key.pem"):
            (tmp_path / "data" / name).touch()
            (tmp_path / "data" / name).chmod(0o600)
        for name, mode in changes.items():
            (tmp_path / name).chmod(mode)
        return exposed(parse(text, "config.toml", base=tmp_path).config, path)

    return findings


def test_as_the_server_makes_them_nothing_is_exposed(site):
    assert site({}) == []


@pytest.mark.parametrize(
    ("name", "mode", "said"),
    [
        ("config.toml", 0o644, "everybody on this machine may read the password hashes"),
        ("config.toml", 0o620, "others may change it"),
        ("data/accounts.sqlite", 0o640, "mode 0640 opens the accounts' password hashes to others"),
        ("data/accounts.sqlite-wal", 0o604, "password hashes"),
        ("data/control.sock", 0o660, "the control of the server"),
        ("data/tls/key.pem", 0o644, "everybody on this machine may read the TLS key"),
        ("data/tls/key.pem", 0o660, "others may change it"),
        ("data/mail", 0o755, "everybody's mail"),
        ("data/queue", 0o701, "everybody's mail"),
    ],
)
def test_what_others_may_read_or_change_is_found(site, tmp_path, name, mode, said):
    (finding,) = site({name: mode})
    assert finding.path == str(tmp_path / name)
    assert said in str(finding)
    assert "chmod" in finding.right


def test_a_configuration_without_secrets_may_be_read_by_everybody(site):
    assert site({"config.toml": 0o644}, TEXT) == []


def test_a_key_of_a_group_for_keys_is_fine_another_group_at_the_hashes_is_not(site, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root gives files to other groups")
    site({})
    os.chown(tmp_path / "data" / "tls" / "key.pem", 0, 54321)
    os.chown(tmp_path / "config.toml", 0, 54321)
    (finding,) = site({"data/tls/key.pem": 0o640})
    assert "group 54321 may read the password hashes" in finding.wrong


def test_files_of_strangers_are_found(site, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    site({})
    os.chown(tmp_path / "config.toml", 54321, 0)
    (finding,) = site({})
    assert "belongs to 54321" in finding.wrong


def test_a_database_password_in_the_configuration_is_a_secret_too(site):
    backend = '[backends.pg]\ntype = "postgresql"\ndomains = "pg.test"\nurl = "postgresql://mail:geheim@db.test/mail"\n'
    (finding,) = site({"config.toml": 0o644}, TEXT + backend)
    assert "database password" in finding.wrong

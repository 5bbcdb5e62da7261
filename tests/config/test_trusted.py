"""[guard], [proxy], [confine]: what makes no sense is said with its line."""

from pathlib import Path

import pytest

from mailserver.config.faults import ConfigError
from mailserver.config.load import parse

HEAD = 'hostname = "mail.example.test"\n'


def faults(text, **kwargs):
    with pytest.raises(ConfigError) as caught:
        parse(HEAD + text, "c.toml", **kwargs)
    return [str(fault) for fault in caught.value.faults]


def test_paths_start_from_the_file():
    text = '[tls]\nclient_ca = "ca.pem"\n[[tls.certificates]]\ncertificate = "a.pem"\n'
    text += '[confine]\nread = "/opt/x"\nwrite = ["w"]\n'
    config = parse(HEAD + text, "c.toml", base=Path("/etc/ms")).config
    assert config.tls.client_ca == Path("/etc/ms/ca.pem")
    (pair,) = config.tls.certificates
    assert (pair.certificate, pair.key) == (Path("/etc/ms/a.pem"), Path("/etc/ms/a.pem"))
    assert (config.confine.read, config.confine.write) == ((Path("/opt/x"),), (Path("/etc/ms/w"),))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[guard]\ntrusted = ["10.0.0.0/8", "nobody"]', '"nobody" is no IP address'),
        ('[guard]\ntrusted = ["0.0.0.0/0"]', "would trust strangers"),
        ('[guard]\nlongest_delay = "0s"', "shorter than"),
        ('[proxy]\ntrusted = ["10.1.2.3/8"]', "host bits"),
        ('[proxy]\nlisten = ["127.0.0.1:2525"]', "nobody could connect"),
        ('[proxy]\ntrusted = "10.0.0.1"\nlisten = ["127.0.0.1:2599"]', "is no listener"),
        ('[proxy]\ntimeout = 0', "zero leaves nothing"),
        ('[submission.senders]\nalice = "*"', "c.toml:3: submission.senders.alice: no account"),
        ('[pop3.accounts.alice]\nexpire = "1d"', "pop3.accounts.alice: no account"),
        ('[pop3]\nexpire = "sometimes"', "c.toml:3: pop3.expire: \"sometimes\" is not understood"),
        ('[pop3.accounts."a@b.test"]\nexpire = -1', "a time cannot be negative"),
        ('[submission.senders]\n"a@b.test" = ["*", "*@"]', '"*@": malformed domain'),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_said(text, said):
    (fault,) = faults(text)
    assert said in fault


def test_a_proxy_in_front_of_smtp():
    text = '[proxy]\ntrusted = "10.0.0.1"\nlisten = ["127.0.0.1:2525"]\n'
    assert parse(HEAD + text, "c.toml").warnings == ()


def test_senders_and_terms_for_an_account_that_is_gone():
    domain = '[domains."b.test"]\n[users."alice@b.test"]\npassword = "$6$a$b"\n'
    text = '[submission.senders]\n"alcie@b.test" = "*"\n"alice@b.test" = "*@c.test"\n"x@d.test" = "*"\n'
    text += '[pop3.accounts."ailce@b.test"]\nlogin_delay = "1m"\n'
    warnings = [str(warning) for warning in parse(HEAD + text + domain, "c.toml").warnings]
    for warning, gone in zip(warnings, ("alcie@b.test", "ailce@b.test"), strict=True):
        assert f"nobody has the account {gone}" in warning
        assert 'did you mean "alice@b.test"?' in warning

"""The configuration file: every fault at once, with file, line, key, what is wrong, what is right."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.config.faults import ConfigError
from mailserver.config.find import find
from mailserver.config.load import load, parse
from mailserver.config.recipients import Known
from mailserver.config.units import SocketAddress
from mailserver.policy.relay import RelayTable

BROKEN = Path(__file__).parent / "broken"
SAMPLE = Path(__file__).parents[2] / "config.toml"
NOBODY = Known()


def messages(text: str, known: Known | None = NOBODY) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, "c.toml", known=lambda config: known) if known is not None else parse(text, "c.toml")
    return [str(fault) for fault in caught.value.faults]


@pytest.mark.parametrize("case", sorted(path.stem for path in BROKEN.glob("*.toml")))
def test_broken_file_prints_exactly_this(case, monkeypatch):
    """broken/CASE.toml and broken/CASE.expected: a bug report becomes two small files."""
    monkeypatch.chdir(BROKEN)
    with pytest.raises(ConfigError) as caught:
        load(Path(f"{case}.toml"), lambda config: NOBODY)
    assert f"{caught.value}\n" == (BROKEN / f"{case}.expected").read_text("utf-8")


def test_the_shipped_file_is_right():
    loaded = load(SAMPLE)
    assert loaded.warnings == ()
    assert loaded.config.data_dir == SAMPLE.parent / "data"
    assert loaded.sources == ("config.toml:11 [[relay]] 127.0.0.0/8",)


def test_an_empty_file_is_a_whole_configuration():
    config = parse("hostname = 'mail.a.test'", "c.toml").config
    assert config.smtp.listen == (SocketAddress("127.0.0.1", 2525),)
    assert config.relay == ()


def test_contract_example_loads():
    """The example of the interface contract, word for word where it is not an ellipsis."""
    text = (
        'hostname = "mail.example.test"\ndata_dir = "data"\n[smtp]\nlisten = ["127.0.0.1:2525"]\n'
        '[submission]\nlisten = ["127.0.0.1:2587"]\nlisten_tls = ["127.0.0.1:2465"]\n[lmtp]\nlisten = []\n'
        '[pop3]\nlisten = ["127.0.0.1:2110"]\nlisten_tls = ["127.0.0.1:2995"]\n'
        "allow_plaintext_login = false\n"
        '[dns]\nservers = ["127.0.0.1:5353"]\n[limits]\nmessage_size = "50 MiB"\nidle_timeout = "5m"\n'
        '[queue]\nretry = ["5m", "15m", "1h", "3h"]\nmax_age = "5d"\n'
        '[[relay]]\nfrom = "127.0.0.0/8"\naction = "relay"\n'
        '[routes]\n"remote.test" = "smtp://127.0.0.1:2526"\n"lists.test" = "lmtp://127.0.0.1:2424"\n'
        '"*" = "smtp://relay.example.test:587"\n[domains."example.test"]\ncatch_all = "alice"\n'
        '[domains."example.test".aliases]\npostmaster = "alice"\n'
        'team = ["alice", "bob", "someone@remote.test"]\n'
        '[users."alice@example.test"]\npassword = "$argon2id$x"\n'
    )
    loaded = parse(text, "c.toml", known=lambda config: Known(frozenset({"bob@example.test"})))
    assert loaded.warnings == ()
    assert loaded.config.queue.retry == (300, 900, 3600, 10800)
    assert loaded.config.domains["example.test"].aliases["postmaster"] == ("alice",)


def test_one_value_may_stand_alone():
    text = 'hostname = "m.a.test"\n[queue]\nretry = "5m"\n[smtp]\nlisten = "*:25"\n[pop3]\nlisten = []\n'
    config = parse(text, "c.toml").config
    assert config.queue.retry == (300,)
    assert config.smtp.listen == (SocketAddress("0.0.0.0", 25),)


def test_relative_paths_start_from_the_file(tmp_path):
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).write_text("")
    file = tmp_path / "c.toml"
    file.write_text(
        'hostname = "m.a.test"\ndata_dir = "../d"\n[tls]\ncertificate = "cert.pem"\nkey = "key.pem"\n'
    )
    config = load(file).config
    assert config.data_dir == tmp_path / "../d"
    assert (config.tls.certificate, config.tls.key) == (tmp_path / "cert.pem", tmp_path / "key.pem")


def test_relay_rules_know_their_lines():
    text = 'hostname = "m.a.test"\n\n[[relay]]\naction = "relay"\nfrom = "10."\n'
    text += '[[relay]]\nfrom = "::1"\naction = "reject"\n'
    loaded = parse(text, "/etc/mailserver/config.toml")
    assert loaded.sources == ("config.toml:3 [[relay]] 10.", "config.toml:6 [[relay]] ::1")
    table = RelayTable.compile(loaded.relay_rules())
    assert table.decide("10.9.9.9").rule == "config.toml:3 [[relay]] 10."
    assert not table.decide("::1").may_connect


def test_the_whole_internet_said_twice_is_a_warning():
    rule = '[[relay]]\nfrom = "0.0.0.0/0"\naction = "relay"\n'
    assert len(messages(rule)) == 1
    loaded = parse(f'hostname = "m.a.test"\n{rule}even_the_whole_internet = true\n', "c.toml")
    assert [f.key for f in loaded.warnings] == ["relay[1]"]


def test_private_networks_of_any_size_are_no_internet():
    rules = "".join(
        f'[[relay]]\nfrom = "{n}"\naction = "relay"\n' for n in ("10.0.0.0/8", "fc00::/7", "fe80::/10")
    )
    assert parse(f'hostname = "m.a.test"\n{rules}', "c.toml").warnings == ()


ALIASES = """
[domains."a.test".aliases]
team = ["alice", "bob"]
[users."carol@b.test"]
password = "{PLAIN}x"
"""


def test_database_addresses_count_as_existing():
    known = Known(frozenset({"alice@a.test", "bob@a.test"}), frozenset({"b.test"}))
    loaded = parse(f'hostname = "m.a.test"\n{ALIASES}', "c.toml", known=lambda config: known)
    assert [f.wrong for f in loaded.warnings] == ["everybody who reads this file has the password"]


def test_without_the_database_missing_names_are_warnings():
    """`user add` must be able to read the file before the account that an alias names exists."""
    loaded = parse(f'hostname = "m.a.test"\n{ALIASES}', "c.toml")
    assert [(f.line, f.key) for f in loaded.warnings] == [
        (4, 'domains."a.test".aliases.team[1]'),
        (4, 'domains."a.test".aliases.team[2]'),
        (5, 'users."carol@b.test"'),
        (6, 'users."carol@b.test".password'),
    ]
    assert len(messages(ALIASES)) == 3


def test_warnings_come_with_the_faults():
    with pytest.raises(ConfigError) as caught:
        parse('hostname = "localhost"\nfoo = 1\n', "c.toml")
    assert [f.key for f in caught.value.warnings] == ["hostname"]


def test_files_that_cannot_be_read(tmp_path):
    missing, folder, latin = tmp_path / "no.toml", tmp_path / "folder", tmp_path / "latin.toml"
    folder.mkdir()
    latin.write_bytes("# fine\nhostname = 'm\xfcll.test'\n".encode("latin-1"))
    for path, start in ((missing, "1: file: there is no such file"), (folder, "1: file: cannot be read"),
                        (latin, "2: file: not UTF-8 text")):  # fmt: skip
        with pytest.raises(ConfigError) as caught:
            load(path)
        assert str(caught.value).startswith(f"{path}:{start}")


def test_byte_order_mark_is_harmless(tmp_path):
    (tmp_path / "c.toml").write_bytes(b'\xef\xbb\xbfhostname = "m.a.test"\r\n')
    assert load(tmp_path / "c.toml").config.hostname == "m.a.test"


def test_deep_nesting_is_a_fault():
    assert "nested too deeply" in messages("a = " + "[" * 100_000)[0]


def test_search_order(tmp_path):
    own, etc = tmp_path / "config.toml", tmp_path / "etc.toml"
    places = ("config.toml", "etc.toml")
    with pytest.raises(ConfigError, match=r"no -c, no \$MAILSERVER_CONFIG, no config.toml, no etc.toml"):
        find(None, {}, directory=tmp_path, places=places)
    etc.touch()
    assert find(None, {}, directory=tmp_path, places=places) == etc
    own.touch()
    assert find(None, {}, directory=tmp_path, places=places) == own
    assert find(None, {"MAILSERVER_CONFIG": "x"}, directory=tmp_path, places=places) == tmp_path / "x"
    assert find("/y", {"MAILSERVER_CONFIG": "x"}, directory=tmp_path, places=places) == Path("/y")


@given(st.data())
def test_any_damage_to_a_good_file_is_told_in_faults(data):
    """Cut, doubled or garbled anywhere: settings or faults with real lines, never another exception."""
    text = SAMPLE.read_text("utf-8") + ALIASES
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 8)))
    damage = data.draw(st.text(alphabet='ab"[]{}=.,#\n\\é1', max_size=4))
    text = text[:start] + damage + text[end:]
    try:
        parse(text, "c.toml")
    except ConfigError as error:
        assert error.faults
        assert all(1 <= fault.line <= text.count("\n") + 1 for fault in error.faults)
        assert all(fault.wrong and fault.right and fault.key for fault in error.faults)


values = st.recursive(
    st.integers() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda v: (
        st.lists(v, max_size=2) | st.dictionaries(st.sampled_from(["from", "a.test", "x"]), v, max_size=2)
    ),
    max_leaves=4,
)
TOP = [
    "hostname",
    "data_dir",
    "smtp",
    "tls",
    "queue",
    "log",
    "relay",
    "routes",
    "domains",
    "users",
    "postmaster",
]
INNER = [
    "listen",
    "retry",
    "from",
    "action",
    "aliases",
    "a.test",
    "a@a.test",
    "catch_all",
    "password",
    "target",
]


@given(
    st.dictionaries(
        st.sampled_from(TOP), st.dictionaries(st.sampled_from(INNER), values, max_size=3) | values
    )
)
def test_any_tree_of_any_types_is_told_in_faults(tree):
    text = "\n".join(f"{key} = {inline(value)}" for key, value in tree.items())
    assert tomllib.loads(text).keys() == tree.keys()
    try:
        parse(text, "c.toml", known=lambda config: NOBODY)
    except ConfigError as error:
        assert all(1 <= fault.line <= text.count("\n") + 1 for fault in error.faults)


def inline(value) -> str:
    """A value as inline TOML."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{inline(key)} = {inline(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(inline, value)) + "]"
    if isinstance(value, str):
        return '"' + "".join(c if c.isalnum() else f"\\U{ord(c):08x}" for c in value) + '"'
    return str(value).lower()

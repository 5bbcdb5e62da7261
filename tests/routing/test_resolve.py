"""Routing: precedence, expansion, loops; the graph agrees with a naive reading of the rules."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.message.address import parse
from mailserver.message.envelope import Local, Remote
from mailserver.routing.directory import ROLE_ADDRESSES, Directory, DomainEntry
from mailserver.routing.resolve import (
    DEPTH_MAX,
    WIDTH_MAX,
    Foreign,
    Leaf,
    Leaves,
    Loop,
    Unknown,
    complete,
    resolve,
    target_address,
    wire_form,
)


def directory(aliases=None, *, mailboxes=("alice", "bob"), catch_all=None, **rest) -> Directory:
    """a.test as told, and b.test with eve alone."""
    written = (aliases or {}).items()
    targets = {local: tuple(target_address(t, "a.test") for t in texts) for local, texts in written}
    domains = {
        "a.test": DomainEntry(frozenset(mailboxes), targets, catch_all),
        "b.test": DomainEntry(frozenset({"eve"})),
    }
    return Directory(domains=domains, default_domain="a.test", **rest)


def addresses(resolution) -> list[str]:
    assert isinstance(resolution, Leaves), resolution
    return [leaf.address for leaf in resolution.leaves]


def test_mailbox_keeps_the_spelling_of_the_envelope_and_ignores_its_case():
    found = resolve(directory(), parse("Alice@A.test"))
    assert found == Leaves(
        (Leaf("Alice@a.test", Local("alice@a.test"), None, ()),), ("alice@a.test is a mailbox",)
    )


def test_quoted_local_part_is_the_same_mailbox():
    plain, quoted = (resolve(directory(), parse(a)) for a in ("alice@a.test", '"ALICE"@a.test'))
    assert plain.leaves[0].route == quoted.leaves[0].route
    spaced = directory(mailboxes=["john smith"])
    assert resolve(spaced, parse('"John Smith"@a.test')).leaves[0].route == Local("john smith@a.test")


def test_letters_are_the_same_however_they_are_composed_and_elsewhere_they_stay_as_they_are():
    book = directory({"team": ["gru\u0308n", "gru\u0308n@remote.test"]}, mailboxes=["gr\u00fcn"])
    for address in ("gru\u0308n@a.test", "team@a.test"):
        assert resolve(book, parse(address)).leaves[0].route == Local("gr\u00fcn@a.test")
    assert addresses(resolve(book, parse("team@a.test")))[1] == "gru\u0308n@remote.test"


def test_nobody_is_unknown_and_only_there():
    found = resolve(directory(), parse("carol@a.test"))
    assert found == Unknown("nobody has the address carol@a.test", ("carol@a.test does not exist",))


def test_alias_expands_without_duplicates_and_says_how_it_got_there():
    book = directory({"team": ["alice", "all", "out@x.test"], "all": ["Bob", "alice", "out@x.test"]})
    found = resolve(book, parse("Team@a.test"))
    assert found.leaves == (
        Leaf("alice@a.test", Local("alice@a.test"), "Team@a.test", ("team@a.test",)),
        Leaf("bob@a.test", Local("bob@a.test"), "Team@a.test", ("team@a.test", "all@a.test")),
        Leaf("out@x.test", Remote("x.test"), "Team@a.test", ("team@a.test", "all@a.test")),
    )
    assert found.steps[0] == "team@a.test is an alias of alice@a.test, all@a.test, out@x.test"


def test_local_parts_of_others_keep_their_case():
    """RFC 5321 2.4: only the host a local part belongs to may fold it."""
    assert addresses(resolve(directory({"x": ["Jane.Doe@Other.Test"]}), parse("x@a.test"))) == [
        "Jane.Doe@other.test"
    ]


def test_alias_wins_over_the_mailbox_and_its_own_name_means_the_mailbox():
    book = directory({"alice": ["Alice", "bob"], "bob": ["eve@b.test"]})
    assert addresses(resolve(book, parse("alice@a.test"))) == ["alice@a.test", "eve@b.test"]
    assert resolve(book, parse("alice@a.test")).leaves[0].alias is None
    through = resolve(directory({"alice": ["alice", "bob"], "team": ["alice"]}), parse("team@a.test"))
    assert addresses(through) == ["alice@a.test", "bob@a.test"]


def test_own_name_without_a_mailbox_is_a_dead_target():
    """Removing an account must not stop the copies that its alias sends elsewhere."""
    book = directory({"carol": ["carol", "bob"], "dora": ["dora"]})
    assert addresses(resolve(book, parse("carol@a.test"))) == ["bob@a.test"]
    assert isinstance(resolve(book, parse("dora@a.test")), Unknown)


def test_dead_target_is_left_out_and_reported():
    found = resolve(directory({"team": ["alice", "gone"]}), parse("team@a.test"))
    assert addresses(found) == ["alice@a.test"]
    assert "gone@a.test does not exist: left out" in found.steps


def test_alias_to_nobody_is_unknown():
    """FEATURES N03: refused at RCPT, so no bounce is ever made for it."""
    book = directory({"team": ["gone", "lost"], "empty": []})
    assert isinstance(resolve(book, parse("team@a.test")), Unknown)
    assert isinstance(resolve(book, parse("empty@a.test")), Unknown)


def test_cycle_names_its_path():
    book = directory({"x": ["alice", "y"], "y": ["z"], "z": ["y"]})
    found = resolve(book, parse("x@a.test"))
    assert isinstance(found, Loop)
    assert found.path == ("x@a.test", "y@a.test", "z@a.test", "y@a.test")
    assert found.reason == "alias loop: x@a.test → y@a.test → z@a.test → y@a.test"


def test_catch_all_never_shadows():
    """FEATURES A04: mailbox, alias and role address keep their own mail."""
    book = directory({"info": ["bob"]}, catch_all="alice@a.test", postmaster="bob@a.test")
    for given_, where in {
        "alice": "alice",
        "bob": "bob",
        "info": "bob",
        "abuse": "bob",
        "else": "alice",
    }.items():
        assert resolve(book, parse(f"{given_}@a.test")).leaves[0].route == Local(f"{where}@a.test")


def test_catch_all_that_does_not_exist_is_no_loop():
    assert isinstance(resolve(directory(catch_all="gone@a.test"), parse("x@a.test")), Unknown)


def test_role_addresses_exist_in_every_domain():
    for role in ROLE_ADDRESSES:
        found = resolve(directory(postmaster="alice@a.test"), parse(f"{role.upper()}@b.test"))
        assert found.leaves[0].route == Local("alice@a.test")
    own = directory({"abuse": ["bob"]}, mailboxes=["alice", "bob", "root"], postmaster="alice@a.test")
    assert addresses(resolve(own, parse("abuse@a.test"))) == ["bob@a.test"]
    assert addresses(resolve(own, parse("root@a.test"))) == ["root@a.test"]


def test_postmaster_without_a_mailbox_is_no_loop():
    book = directory(postmaster="postmaster@a.test")
    assert isinstance(resolve(book, parse("abuse@a.test")), Unknown)


def test_bare_postmaster_only_is_completed():
    assert [complete(directory(), t) for t in ("PostMaster", "alice", "postmaster@b.test")] == [
        "PostMaster@a.test", "alice", "postmaster@b.test",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("domain", "destination"),
    [("x.test", "smtp://127.0.0.1:26"), ("sub.x.test", "smtp://hub:25"), ("[192.0.2.1]", "smtp://hub:25")],
)
def test_static_route_is_exact_then_star(domain, destination):
    book = directory(static_routes={"x.test": "smtp://127.0.0.1:26", "*": "smtp://hub:25"})
    found = resolve(book, parse(f"u@{domain}"))
    assert isinstance(found, Foreign)
    assert (found.route, found.address) == (Remote(destination), f"u@{domain}")


def test_without_route_the_domain_itself_is_asked():
    assert resolve(directory(), parse("u@X.test")).route == Remote("x.test")


def test_address_literal_is_ours_only_when_listed():
    assert isinstance(resolve(directory(), parse("alice@[127.0.0.1]")), Foreign)
    listed = Directory(domains={"[127.0.0.1]": DomainEntry(frozenset({"alice"}))})
    assert addresses(resolve(listed, parse("alice@[127.0.0.1]"))) == ["alice@[127.0.0.1]"]


def test_depth_and_width_are_bounded():
    chain = {f"n{i}": [f"n{i + 1}"] for i in range(DEPTH_MAX + 5)} | {f"n{DEPTH_MAX + 5}": ["alice"]}
    deep = directory(chain)
    assert isinstance(resolve(deep, parse("n0@a.test")), Loop)
    assert addresses(resolve(deep, parse("n7@a.test"))) == ["alice@a.test"]
    wide = directory({"all": [f"u{i}@x.test" for i in range(WIDTH_MAX)], "more": ["all", "alice"]})
    assert len(resolve(wide, parse("all@a.test")).leaves) == WIDTH_MAX
    assert "10,000" in resolve(wide, parse("more@a.test")).reason


def test_wire_form_quotes_where_it_must():
    assert wire_form("john smith@a.test") == '"john smith"@a.test'
    assert parse(wire_form('a"b\\c@a.test')).key == 'a"b\\c@a.test'


# ---- the graph against a naive reading ------------------------------------------------------------

LOCALS, DOMAINS = ["a", "b", "c", "root"], ["x.test", "y.test"]
nodes = st.builds(
    lambda local, domain: f"{local}@{domain}", st.sampled_from(LOCALS), st.sampled_from(DOMAINS)
)
ends = nodes | st.just("far@z.test")
entries = st.builds(
    DomainEntry,
    st.frozensets(st.sampled_from(LOCALS)),
    st.dictionaries(st.sampled_from(LOCALS), st.lists(ends, max_size=3).map(tuple), max_size=3),
    st.none() | ends,
)
books = st.builds(
    Directory, st.dictionaries(st.sampled_from(DOMAINS), entries, min_size=1), st.none() | nodes,
    st.dictionaries(st.sampled_from(["z.test", "y.test", "*"]), st.just("smtp://hub:25")),
)  # fmt: skip


class Cycle(Exception):
    pass


def naive(book: Directory, node: str, path: tuple[str, ...] = ()) -> set[str]:
    """The four rules of precedence as one would say them, without memory and without bounds."""
    local, domain = node.split("@")
    if domain not in book.domains:
        return {f"remote {node}"}
    if node in path:
        raise Cycle
    entry = book.domains[domain]
    if local in entry.aliases:
        out = set()
        for target in entry.aliases[local]:
            if target != node:
                out |= naive(book, target, (*path, node))
            elif local in entry.mailboxes:
                out |= {f"local {node}"}
        return out
    if local in entry.mailboxes:
        return {f"local {node}"}
    if local == "root" and book.postmaster and book.postmaster != node:
        return naive(book, book.postmaster, (*path, node))
    if entry.catch_all and entry.catch_all != node:
        return naive(book, entry.catch_all, (*path, node))
    return set()


@settings(max_examples=300)
@given(books, nodes)
def test_the_walk_agrees_with_the_naive_reading(book, node):
    found = resolve(book, parse(node))
    try:
        expected = naive(book, node)
    except Cycle:
        assert isinstance(found, Loop)
        assert found.path[-1] in found.path[:-1]
        return
    static = book.static_routes
    match found:
        case Foreign(route, address):
            assert expected == {f"remote {address}"}
            domain = address.rpartition("@")[2]
            assert route.destination == static.get(domain, static.get("*", domain))
        case Unknown():
            assert expected == set()
        case Leaves(leaves):
            seen = [f"{type(leaf.route).__name__.lower()} {leaf.address}" for leaf in leaves]
            assert sorted(seen) == sorted(expected)
            assert all(leaf.via == () or leaf.via[0] == node for leaf in leaves)


@given(books, nodes)
def test_an_own_mailbox_or_alias_is_never_shadowed(book, node):
    """Whatever catch-all, postmaster and routes say, they do not change mail for what exists by name."""
    local, domain = node.split("@")
    entry = book.domains.get(domain)
    if entry is None or local not in entry.mailboxes or local in entry.aliases:
        return
    assert [leaf.route for leaf in resolve(book, parse(node)).leaves] == [Local(node)]


@given(st.text(max_size=20), st.text(max_size=20))
def test_no_alias_target_text_breaks_it(local, text):
    try:
        target = target_address(text, "a.test")
    except ValueError:
        target = text
    book = Directory(domains={"a.test": DomainEntry(frozenset({"alice"}), {"x": (target, "alice@a.test")})})
    assert isinstance(resolve(book, parse("x@a.test")), Leaves | Loop)

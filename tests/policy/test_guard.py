"""Failed logins: who is slowed down, how much, and who never is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.config.trust import Guard as Settings
from mailserver.policy import guard as module
from mailserver.policy.guard import FREE, Guard

HERE, THERE, ALICE, BOB = "192.0.2.7", "198.51.100.9", "alice@example.test", "bob@example.test"


def fail(guard, times, address=HERE, account=ALICE, now=0.0):
    """Fail so often, each time when the turn has come; the time after the last."""
    for _ in range(times):
        now += guard.ask(address, account, now).wait
        guard.failed(address, account, now)
    return now


def waits(guard, times, **who):
    now, found = 0.0, []
    for _ in range(times):
        verdict = guard.ask(who.get("address", HERE), who.get("account", ALICE), now)
        found.append(verdict.wait)
        now += verdict.wait
        guard.failed(who.get("address", HERE), who.get("account", ALICE), now)
    return found


def test_delays_grow_with_failures_and_have_an_end():
    guard = Guard(Settings(free_failures=2, first_delay=1, longest_delay=8))
    found = waits(guard, 9)
    assert found[:2] == [0, 0]
    assert found[2] == 0  # the second failure was still free
    assert found[3:] == sorted(found[3:])
    assert found[3] >= 1
    assert max(found) == 8


def test_only_the_pair_is_slowed_down():
    guard = Guard(Settings())
    now = fail(guard, 6)
    verdict = guard.ask(HERE, ALICE.upper(), now)
    assert verdict.wait > 0
    assert not verdict.refuse
    assert "6 failed logins at this account from 192.0.2.7" in verdict.reason
    assert guard.ask(HERE, BOB, now) == FREE
    assert guard.ask(THERE, ALICE, now) == FREE


def test_many_connections_at_once_queue_for_turns_and_are_then_put_off_unchecked():
    guard = Guard(Settings(free_failures=0, first_delay=10, longest_delay=30))
    guard.failed(HERE, ALICE, 0.0)
    answers = [guard.ask(HERE, ALICE, 0.0) for _ in range(100)]
    assert [verdict.wait for verdict in answers[:3]] == [10, 20, 30]
    assert all(verdict.refuse for verdict in answers[3:])
    assert not guard.ask(HERE, ALICE, 31.0).refuse  # nobody is barred: turns come free again


def test_failures_are_forgotten():
    guard = Guard(Settings(forget=600))
    now = fail(guard, 8)
    assert guard.ask(HERE, ALICE, now + 599).wait == 0  # long over, and yet counted
    guard.failed(HERE, ALICE, now + 599)
    assert guard.ask(HERE, ALICE, now + 599).wait > 0
    assert guard.ask(HERE, ALICE, now + 1200) == FREE
    assert guard.failed(HERE, ALICE, now + 1200) == FREE


def test_a_clock_set_back_bars_nobody_until_it_has_caught_up():
    guard, year = Guard(Settings(longest_delay=30, forget=3600)), 365 * 86400.0
    now = fail(guard, 8, now=year) - year
    verdict = guard.ask(HERE, ALICE, now)
    assert 0 < verdict.wait <= 30
    assert not verdict.refuse
    assert guard.ask(HERE, ALICE, now + 3600) == FREE


def test_an_address_that_tries_many_accounts_is_slowed_down_as_an_address():
    guard = Guard(Settings(accounts_per_address=5))
    now = 0.0
    for n in range(9):
        now += guard.ask(HERE, f"user{n}@example.test", now).wait
        guard.failed(HERE, f"user{n}@example.test", now)
    verdict = guard.ask(HERE, "fresh@example.test", now)
    assert verdict.wait > 1
    assert "accounts from 192.0.2.7" in verdict.reason
    assert guard.ask(THERE, "fresh@example.test", now) == FREE


def test_one_ipv6_network_is_one_client():
    guard = Guard(Settings())
    now = 0.0
    for n in range(6):
        address = f"2001:db8:1:2::{n:x}"
        now += guard.ask(address, ALICE, now).wait
        guard.failed(address, ALICE, now)
    assert guard.ask("2001:db8:1:2:ffff::1", ALICE, now).wait > 0
    assert guard.ask("2001:db8:1:3::1", ALICE, now) == FREE


def test_mapped_ipv4_is_ipv4():
    guard = Guard(Settings())
    now = fail(guard, 6, address="::ffff:192.0.2.7")
    assert guard.ask(HERE, ALICE, now).wait > 0


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "10.9.8.7", "203.0.113.5"])
def test_own_networks_and_proxies_are_never_slowed_down(address):
    guard = Guard(Settings(trusted=("127.0.0.0/8", "::1", "10.")), proxies=["203.0.113.0/28"])
    fail(guard, 50, address=address)
    assert guard.ask(address, ALICE, 0.0) == FREE
    assert guard.list(0.0) == []


def test_a_forgotten_phone_beside_a_good_login_is_forgiven():
    guard = Guard(Settings(forgiven_per_hour=60))
    guard.succeeded(HERE, ALICE, 0.0)
    for minute in range(2, 600, 2):
        assert guard.ask(HERE, BOB, minute * 60.0) == FREE
        assert "forgiven" in guard.failed(HERE, BOB, minute * 60.0).reason


def test_a_good_login_ends_the_slowness_of_its_address():
    guard = Guard(Settings())
    now = fail(guard, 10)
    guard.succeeded(HERE, ALICE, now)
    assert guard.ask(HERE, ALICE, now) == FREE


def test_who_owns_one_account_may_not_guess_at_another_for_ever():
    guard = Guard(Settings(forgiven_per_hour=20))
    guesses, now = 0, 0.0
    while now < 3600:
        guard.succeeded(HERE, BOB, now)
        verdict = guard.ask(HERE, ALICE, now)
        now += max(verdict.wait, 0.1)
        if not verdict.refuse:
            guard.failed(HERE, ALICE, now)
            guesses += 1
    assert (
        guesses < 20 + 20 + 3600 / 30 + 20
    )  # a bucket, its refill, one at each longest delay, the way there


def test_who_owns_one_account_may_not_guess_at_all_others_for_ever():
    """One guess at each of many accounts, and a good login whenever the address would be slowed down."""
    guard = Guard(Settings(forgiven_per_hour=20))
    guesses, now = 0, 0.0
    while now < 3600 and guesses < 10_000:
        now += 0.1
        if guesses % 5 == 0:
            guard.succeeded(HERE, BOB, now)
        victim = f"user{guesses}@example.test"
        verdict = guard.ask(HERE, victim, now)
        now += verdict.wait
        if not verdict.refuse:
            guard.failed(HERE, victim, now)
            guesses += 1
    assert guesses < 20 + 20 + 5 + 3600 / 30 + 20  # as above, and the accounts that are free


def test_goodness_ends():
    guard = Guard(Settings(good_login=100))
    guard.succeeded(HERE, BOB, 0.0)
    now = fail(guard, 8, now=200.0)
    assert guard.ask(HERE, ALICE, now).wait > 0


def test_a_clock_set_back_does_not_prolong_goodness():
    guard = Guard(Settings(good_login=100, forgiven_per_hour=20))
    guard.succeeded(HERE, BOB, 365 * 86400.0)
    now = fail(guard, 8, now=0.0)
    assert guard.ask(HERE, ALICE, now).wait > 0


def test_the_administrator_sees_and_undoes():
    guard = Guard(Settings())
    now = fail(guard, 6)
    fail(guard, 1, account=BOB, now=now - 1)
    first, *rest = guard.list(now)
    assert (first.failures, bool(first.reason)) == (6, True)
    assert {row.account for row in rest} <= {ALICE, BOB, ""}
    assert first.next_login > now
    assert guard.clear(BOB) == 1
    assert guard.ask(HERE, ALICE, now).wait > 0
    assert guard.clear(HERE) == 2
    assert guard.ask(HERE, ALICE, now) == FREE
    fail(guard, 6)
    assert guard.clear() == 2
    assert guard.list(now) == []


def test_tables_are_bounded_whatever_strangers_type(monkeypatch):
    monkeypatch.setattr(module, "TRACKED_MAX", 50)
    monkeypatch.setattr(module, "ADDRESSES_MAX", 20)
    guard = Guard(Settings(accounts_per_address=3))
    for n in range(500):
        guard.failed(f"198.51.{n // 250}.{n % 250}", "x" * 100_000 + str(n), float(n))
        guard.failed(HERE, f"{n}", float(n))
        guard.succeeded(f"203.0.{n // 250}.{n % 250}", ALICE, float(n))
    assert guard.status() == {"pairs": 50, "addresses": 20, "good_addresses": 50}
    assert all(len(row.account) <= 254 for row in guard.list(500.0))
    assert max(row.accounts for row in guard.list(500.0)) <= 4


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["ask", "fail", "good"]),
            st.sampled_from([HERE, THERE, "2001:db8::1"]),
            st.sampled_from([ALICE, BOB]),
            st.floats(-10, 5000),
        ),
        max_size=60,
    )
)
def test_whatever_happens_a_wait_is_bounded_and_everybody_comes_in_again(steps):
    settings = Settings()
    guard, now = Guard(settings), 10_000.0
    for verb, address, account, pause in steps:
        now += pause  # clocks are set back, too
        if verb == "ask":
            verdict = guard.ask(address, account, now)
            assert verdict.wait >= 0
            assert verdict.refuse == (verdict.wait > settings.longest_delay)
        elif verb == "fail":
            guard.failed(address, account, now)
        else:
            guard.succeeded(address, account, now)
    assert guard.ask(HERE, ALICE, now + 700 + settings.forget) == FREE

"""Token buckets: bursts are free, averages are kept, memory is bounded."""

from hypothesis import given
from hypothesis import strategies as st

from mailserver.config.schema import Limits
from mailserver.config.trust import Rates as Settings
from mailserver.policy.crowd import Crowd
from mailserver.policy.networks import Networks
from mailserver.policy.rates import Buckets, Rates

ALICE, PEER = "alice@example.test", "192.0.2.7"


def test_a_burst_of_a_whole_bucket_passes_and_then_the_average_holds():
    buckets = Buckets(100, 3600.0)
    assert [buckets.take("a", 0.0) for _ in range(100)] == [0.0] * 100
    assert 0 < buckets.take("a", 0.0) <= 36.0
    assert buckets.take("b", 0.0) == 0.0
    assert buckets.take("a", 36.1) == 0.0
    assert buckets.take("a", 36.1) > 0
    assert [buckets.take("a", 10_000.0) for _ in range(100)] == [0.0] * 100


def test_more_than_a_bucket_passes_when_it_is_full_and_leaves_a_debt():
    buckets = Buckets(10, 60.0)
    assert buckets.take("a", 0.0, 15) == 0.0
    assert buckets.take("a", 0.0, 1) == 36.0
    assert buckets.take("a", 36.0, 1) == 0.0


def test_zero_is_no_limit():
    buckets = Buckets(0, 60.0)
    assert not any(buckets.take("a", 0.0, 1000) for _ in range(1000))
    assert len(buckets) == 0


def test_the_table_is_bounded():
    buckets = Buckets(1, 60.0, most=10)
    for n in range(1000):
        buckets.take(str(n), 0.0)
    assert len(buckets) == 10


@given(st.integers(1, 50), st.lists(st.tuples(st.floats(0, 30), st.integers(1, 60)), max_size=80))
def test_never_more_than_bucket_refill_and_one_debt(count, steps):
    buckets, now, taken = Buckets(count, 60.0), 0.0, 0
    for pause, cost in steps:
        now += pause
        wait = buckets.take("a", now, cost)
        if not wait:
            taken += min(cost, 2 * count)
        else:
            assert buckets.wait("a", now + wait + 0.001, cost) == 0.0
    assert taken <= count + count * now / 60 + 2 * count


@given(st.lists(st.floats(-1e6, 1e6), max_size=30))
def test_a_clock_that_jumps_shuts_nobody_out_for_long(jumps):
    buckets, now = Buckets(5, 60.0), 0.0
    for jump in jumps:
        now += jump
        assert buckets.take("a", now, 3) <= 2 * 60.0


def test_after_a_clock_was_set_back_by_a_year_the_average_holds_as_before():
    buckets, year = Buckets(5, 60.0), 365 * 86400.0
    while not buckets.take("a", year):
        pass
    taken = sum(not buckets.take("a", second) for second in range(600))
    assert taken == 5 + 600 // 12 - 1


def test_a_thousand_mails_of_a_stolen_account_a_hundred_go():
    rates = Rates(Settings(messages_per_hour=100), Networks(()))
    verdicts = [rates.message(ALICE, PEER, 1, 0.0) for _ in range(1000)]
    assert sum(verdict is None for verdict in verdicts) == 100
    assert verdicts[-1].rule == "[rates] messages_per_hour = 100"
    assert verdicts[-1].wait > 0
    rates.forget(ALICE)
    assert rates.message(ALICE, PEER, 1, 0.0) is None


def test_recipients_count_and_what_is_in_excess_books_nothing():
    rates = Rates(Settings(messages_per_hour=2, recipients_per_hour=100), Networks(()))
    assert rates.message(ALICE, PEER, 60, 0.0) is None
    assert rates.message(ALICE, PEER, 60, 0.0).rule == "[rates] recipients_per_hour = 100"
    assert rates.message(ALICE, PEER, 40, 0.0) is None
    assert rates.message(ALICE, PEER, 1, 0.0) is not None


def test_accounts_are_counted_wherever_they_are_addresses_only_outside():
    rates = Rates(Settings(messages_per_hour=1, address_messages_per_hour=1), Networks(["192.0.2."]))
    assert rates.message(ALICE, PEER, 1, 0.0) is None
    assert rates.message(ALICE, "198.51.100.1", 1, 0.0) is not None
    assert [rates.message(None, PEER, 1, 0.0) for _ in range(3)] == [None] * 3
    assert rates.message(None, "2001:db8::1", 1, 0.0) is None
    assert rates.message(None, "2001:db8::2", 1, 0.0).rule == "[rates] address_messages_per_hour = 1"


def test_connections_per_address():
    rates = Rates(Settings(connections_per_minute=3), Networks(["127.0.0.0/8"]))
    assert [rates.connection(PEER, 0.0) for _ in range(3)] == [None] * 3
    assert rates.connection(PEER, 0.0).rule == "[rates] connections_per_minute = 3"
    assert rates.connection("127.0.0.1", 0.0) is None
    assert rates.connection(PEER, 20.1) is None


def test_other_settings_start_anew_the_same_do_not():
    rates, nobody = Rates(Settings(messages_per_hour=1), Networks(())), Networks(())
    assert rates.message(ALICE, PEER, 1, 0.0) is None
    rates.configure(Settings(messages_per_hour=1), nobody)
    assert rates.message(ALICE, PEER, 1, 0.0) is not None
    rates.configure(Settings(messages_per_hour=2), nobody)
    assert rates.message(ALICE, PEER, 1, 0.0) is None


def test_whoever_has_a_network_of_ipv6_has_the_connections_of_one_address():
    """RFC 6177: every subscriber has 2^64 addresses."""
    crowd, limits = Crowd(), Limits(connections_per_address=3)
    clients = [f"2001:db8:0:1::{n}" for n in range(3)]
    for client in clients:
        assert not crowd.has_all_of(client, limits)
        crowd.enter(client)
    assert crowd.has_all_of("2001:db8:0:1:ffff::1", limits)
    assert not crowd.has_all_of("2001:db8:0:2::1", limits)
    crowd.leave(clients[0])
    assert not crowd.has_all_of("2001:db8:0:1:ffff::1", limits)
    for client in clients[1:]:
        crowd.leave(client)
    assert crowd.addresses == 0

"""Queue ids."""

from __future__ import annotations

from mailserver.message.ids import IdSource


def test_ids_are_unique_within_a_moment_and_sort_by_time() -> None:
    source = IdSource(seed=0xFFFF0)
    same_moment = [source.next(1_800_000_000.0) for _ in range(1000)]
    assert len(set(same_moment)) == 1000
    later = source.next(1_800_000_001.0)
    assert all(one < later for one in same_moment)
    assert all(len(one) == 13 and one.isalnum() for one in same_moment)

"""The table of ratios: paired by round, warm-up and faults left out."""

from __future__ import annotations

from typing import Any

from bench import table


def row(label: str, number: int, value: float, **more: Any) -> dict[str, Any]:
    usual = {"work": "W1", "unit": "messages/s", "more": True, "warm_up": number == 0}
    return {**usual, "label": label, "round": number, "value": value, **more}


def cells(text: str, line: int) -> list[str]:
    return [cell.strip() for cell in text.splitlines()[line].strip("|").split("|")]


def test_a_drifting_machine_does_not_change_the_ratio() -> None:
    """Both slow down by half from round to round: each round still says two to one."""
    rows = [row("ours", n, 4000 / 2**n) for n in (1, 2, 3)] + [row("peer", n, 2000 / 2**n) for n in (1, 2, 3)]
    assert cells(table.ratios(rows, "ours"), 2)[:4] == ["W1", "peer", "2.00 (2.00–2.00)", "more is better"]


def test_the_median_round_counts_and_the_range_is_said() -> None:
    rows = [row("ours", n, value) for n, value in ((1, 100), (2, 300), (3, 900))]
    rows += [row("peer", n, 100) for n in (1, 2, 3)]
    assert cells(table.ratios(rows, "ours"), 2)[2] == "3.00 (1.00–9.00)"
    assert cells(table.values(rows), 2)[2] == "300 (100–900) messages/s"


def test_the_warm_up_gives_only_its_memory() -> None:
    rows = [row("ours", 0, 1, pss_mb=80.0), row("ours", 1, 200, rss_mb=90.0)]
    rows += [row("peer", 0, 1000, pss_mb=40.0), row("peer", 1, 100, rss_mb=900.0)]
    assert cells(table.ratios(rows, "ours"), 2)[2] == "2.00"
    assert cells(table.ratios(rows, "ours"), 2)[5] == "2.00"
    assert cells(table.values(rows), 2)[4:6] == ["80", "90"]


def test_a_fault_is_said_and_its_round_left_out() -> None:
    rows = [row("ours", 1, 200), row("ours", 2, 400), row("peer", 1, 100), row("peer", 2, 0, bad="only 7")]
    assert cells(table.ratios(rows, "ours"), 2)[2] == "2.00"
    assert table.left_out(rows) == "not counted: W1 peer round 2: only 7"


def test_a_rival_that_never_ran_has_no_ratio() -> None:
    rows = [
        row("ours", 1, 200),
        {"work": "W1", "label": "peer", "round": 1, "warm_up": False, "bad": "refused"},
    ]
    assert "peer" not in table.ratios(rows, "ours")

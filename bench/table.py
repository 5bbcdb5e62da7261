"""Medians, and ratios of ours to each of the others.

A ratio is the median of the ratios of single rounds: in one round the two were loaded right after each other, so that
a machine whose speed drifts changes both. Memory is the peak of all rounds, the warm-up's (where PSS is sampled) too.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from itertools import product

from bench.tool import Row


def counted(rows: Iterable[Row], work: str, label: str) -> dict[int, Row]:
    """The rows of a contender that count, by round."""
    return {
        row["round"]: row
        for row in rows
        if row["work"] == work and row["label"] == label and not row["warm_up"] and not row.get("bad")
    }


def values(rows: Sequence[Row]) -> str:
    """A line for each workload and contender: medians, in brackets the range."""
    lines = [["", "", "median (range)", "CPU s/1,000", "peak PSS MB", "peak RSS MB", "p50 ms", "p99 ms"]]
    pairs = product(_in_order(row["work"] for row in rows), _in_order(row["label"] for row in rows))
    lines.extend(
        [work, label, _figure(mine), *_others(rows, work, label, mine)]
        for work, label in pairs
        if (mine := list(counted(rows, work, label).values()))
    )
    return _columns(lines)


def ratios(rows: Sequence[Row], ours: str) -> str:
    """A line for each workload and rival. Rate: more is better for us; all others: less is."""
    lines = [["", f"{ours} ÷", "ratio (range)", "", "CPU", "memory", "p99"]]
    for work in _in_order(row["work"] for row in rows):
        us = counted(rows, work, ours)
        for label in _in_order(row["label"] for row in rows):
            them = counted(rows, work, label)
            rounds = sorted(us.keys() & them.keys())
            if label == ours or not rounds:
                continue
            pairs = [(us[n], them[n]) for n in rounds]
            wanted = "more is better" if us[rounds[0]]["more"] else "less is better"
            memory = _ratio([(_memory(rows, work, ours), _memory(rows, work, label))])
            lines.append([
                work, label, _ranged([_quotient(a, b, "value") for a, b in pairs]), wanted,
                _ratio([(a.get("cpu"), b.get("cpu")) for a, b in pairs]), memory,
                _ratio([(a.get("p99_ms"), b.get("p99_ms")) for a, b in pairs]),
            ])  # fmt: skip
    return _columns(lines) if len(lines) > 1 else "(nothing to compare with)"


def left_out(rows: Iterable[Row]) -> str:
    """What was measured and not counted."""
    bad = [
        f"not counted: {r['work']} {r['label']} round {r['round']}: {r['bad']}" for r in rows if r.get("bad")
    ]
    return "\n".join(bad)


def _figure(rows: Sequence[Row]) -> str:
    found = [float(row["value"]) for row in rows]
    text = _short(statistics.median(found))
    if len(found) > 1:
        text += f" ({_short(min(found))}–{_short(max(found))})"
    return f"{text} {rows[0]['unit']}"


def _others(rows: Sequence[Row], work: str, label: str, mine: Sequence[Row]) -> list[str]:
    def median(key: str) -> str:
        found = [float(row[key]) for row in mine if row.get(key)]
        return _short(statistics.median(found)) if found else "-"

    pss, rss = (_peak(rows, work, label, key) for key in ("pss_mb", "rss_mb"))
    peaks = [_short(peak) if peak else "-" for peak in (pss, rss)]
    return [median("cpu"), *peaks, median("p50_ms"), median("p99_ms")]


def _memory(rows: Sequence[Row], work: str, label: str) -> float | None:
    """PSS where it was sampled: it counts what processes share once."""
    return _peak(rows, work, label, "pss_mb") or _peak(rows, work, label, "rss_mb")


def _peak(rows: Sequence[Row], work: str, label: str, key: str) -> float | None:
    found = [float(r[key]) for r in rows if r["work"] == work and r["label"] == label and r.get(key)]
    return max(found, default=None)


def _quotient(a: Row, b: Row, key: str) -> float:
    return float(a[key]) / float(b[key]) if b[key] else float("nan")


def _ratio(pairs: Sequence[tuple[float | None, float | None]]) -> str:
    found = [a / b for a, b in pairs if a is not None and b]
    return f"{statistics.median(found):.2f}" if found else "-"


def _ranged(found: Sequence[float]) -> str:
    text = f"{statistics.median(found):.2f}"
    return f"{text} ({min(found):.2f}–{max(found):.2f})" if len(found) > 1 else text


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _in_order(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _columns(lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table that can be read as it is."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    ]
    text.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(text)

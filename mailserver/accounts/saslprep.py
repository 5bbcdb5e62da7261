"""SASLprep (RFC 4013): one spelling of names and passwords that look the same, as SCRAM asks for."""

from __future__ import annotations

import stringprep
import unicodedata

_PROHIBITED = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def saslprep(text: str, *, stored: bool = False) -> str:
    """``text`` prepared as a query, or as a ``stored`` string, which may hold no unassigned code points
    (RFC 4013 section 2.5). Raises ValueError for what is prohibited."""
    mapped = "".join(" " if stringprep.in_table_c12(c) else c for c in text if not stringprep.in_table_b1(c))
    prepared = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)
    for character in prepared:
        if any(prohibited(character) for prohibited in _PROHIBITED):
            raise ValueError("prohibited character")
        if stored and stringprep.in_table_a1(character):
            raise ValueError("unassigned code point")
    _check_direction(prepared)
    return prepared


def _check_direction(text: str) -> None:
    """RFC 3454 section 6: right-to-left text begins and ends so, and holds nothing left-to-right."""
    if not any(stringprep.in_table_d1(c) for c in text):
        return
    ends = stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1])
    if not ends or any(stringprep.in_table_d2(c) for c in text):
        raise ValueError("mixed directions")

"""When Python looks for cycles of dead objects: seldom, and never among what lives as long as the server."""

from __future__ import annotations

import gc

YOUNG = 5_000  # objects more than died since the last look; Python's 700 come with every 15 sessions


def started() -> None:
    """What exists now stays: no collection looks at it again. Sessions and messages die without one."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, 20, 20)

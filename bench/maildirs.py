"""The mailboxes that the load generators write to, for servers that the peers folder does not know."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from glob import glob
from pathlib import Path

from bench.places import BOXES

SUBFOLDERS = ("tmp", "new", "cur")


def make_boxes(mail: Path, boxes: Iterable[str] = BOXES, owner: str = "") -> None:
    """Empty Maildirs below ``mail`` where missing; ``owner``: a user's name."""
    for box in boxes:
        for sub in SUBFOLDERS:
            (mail / box / sub).mkdir(parents=True, exist_ok=True, mode=0o700)
        if owner:
            for folder in (mail / box, *(mail / box / sub for sub in SUBFOLDERS)):
                shutil.chown(folder, owner, owner)


def empty(mail: str, boxes: Iterable[str]) -> None:
    """Removes every message, and Dovecot's indexes of them."""
    for box in boxes:
        for index in glob(f"{mail}/{box}/dovecot*"):
            os.unlink(index)
        for sub in SUBFOLDERS:
            with os.scandir(f"{mail}/{box}/{sub}") as entries:
                for entry in entries:
                    os.unlink(entry.path)


def count(mail: str, boxes: Iterable[str]) -> int:
    """Messages delivered and not yet deleted."""
    return sum(len(os.listdir(f"{mail}/{box}/{sub}")) for box in boxes for sub in ("new", "cur"))

"""The shape of the house: imports only go down the floors, and each third party has its room."""

import ast
import functools
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2] / "mailserver"

# Longest prefix wins. 0 values, 1 decisions, 2 effects, 3 conversations, 4 root.
FLOORS = {
    "": 0,  # mailserver/__init__.py
    "message": 0, "reply": 0, "events": 0,
    "config": 1, "policy": 1, "routing": 1,
    "queue.schedule": 1, "queue.batch": 1, "queue.lanes": 1, "queue.slots": 1, "queue.backoff": 1,
    "queue.judgement": 1, "deliver.bounce": 1, "pop3.protocol": 1,
    "store": 2, "dns": 2, "accounts": 2, "observe": 2, "host": 2, "deliver": 2,
    "queue.spool": 2, "queue.spool_format": 2, "queue.read_ahead": 2,
    "receive": 3, "queue": 3, "pop3": 3, "control": 3,
    "app": 4, "serve": 4, "housekeeping": 4, "listeners": 4, "introduction": 4, "cli": 4, "__main__": 4,
}  # fmt: skip

# A value or a decision does not look at the clock, wait, or touch the machine.
FORBIDDEN = {
    0: {"os", "io", "asyncio", "time", "socket", "threading", "random", "subprocess", "pathlib"},
    1: {"asyncio", "time", "threading", "subprocess"},
}

# Who may import what from outside; everything else outside the standard library is refused.
FENCES = {
    "aiosmtpd": ["receive"],
    "aiosmtplib": ["deliver.connection"],
    "aiodns": ["dns"],
    "pycares": ["dns"],
    "sqlite3": ["accounts.database"],
    "argon2": ["accounts.passwords"],
    "asyncpg": ["accounts.backends.postgresql"],
    "cryptography": ["host.self_signed"],
    "typer": ["cli"],
    "rich": ["cli"],
    "pydantic": ["config"],
    "pydantic_core": ["config"],
    "idna": ["message.address"],
    "uvloop": ["serve", "cli"],
    "msgspec": [""],
}

# Rooms that must not know each other although the floors would let them; exceptions are pure or plain values.
STRANGERS = [
    ("receive", "queue", set()),  # gets Queue.accept as a callable
    ("receive", "deliver", set()),
    ("receive", "pop3", set()),
    ("queue", "deliver", {"deliver.bounce", "deliver.attempt"}),  # gets Deliver as a callable
    ("queue", "receive", set()),
    ("pop3", "queue", set()),
    ("pop3", "receive", set()),
    ("control.server", "queue", set()),  # gets its commands as callables
]


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def longest(name, table):
    found = [key for key in table if key in ("", name) or name.startswith(key + ".")]
    return table[max(found, key=len)]


def floor(name):
    assert any(key and (name == key or name.startswith(key + ".")) for key in FLOORS) or not name, (
        f"{name} has no floor yet: give its room one in FLOORS"
    )
    return longest(name, FLOORS)


@functools.cache
def imports(path):
    """Dotted name and line of everything imported, wherever the import stands."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            for alias in node.names:  # "from mailserver.host import tls" imports a module, too
                full = f"{node.module}.{alias.name}"
                is_module = full.removeprefix("mailserver.") in MODULES
                found.append((full if is_module else node.module, node.lineno))
    return found


def edges():
    for name, path in MODULES.items():
        for imported, line in imports(path):
            yield name, imported, f"mailserver/{path.relative_to(ROOT)}:{line}"


def ours():
    for name, imported, where in edges():
        if imported.split(".")[0] == "mailserver":
            yield name, imported.removeprefix("mailserver").removeprefix("."), where


def within(name, room):
    return name == room or name.startswith(room + ".") or not room


def test_imports_only_go_down():
    assert not [
        f"{where}: {name} (floor {floor(name)}) imports {imported} (floor {floor(imported)})"
        for name, imported, where in ours()
        if floor(imported) > floor(name)
    ]


def test_nobody_imports_the_root():
    assert not [where for name, imported, where in ours() if floor(imported) == 4 and floor(name) < 4]


@pytest.mark.parametrize("level", sorted(FORBIDDEN))
def test_values_and_decisions_are_pure(level):
    assert not [
        f"{where}: floor {level} imports {imported}"
        for name, imported, where in edges()
        if floor(name) == level and imported.split(".")[0] in FORBIDDEN[level]
    ]


@pytest.mark.parametrize(("room", "stranger", "except_for"), STRANGERS)
def test_rooms_that_do_not_know_each_other(room, stranger, except_for):
    assert not [
        f"{where}: {name} imports {imported}"
        for name, imported, where in ours()
        if within(name, room) and within(imported, stranger) and imported not in except_for
    ]


def test_every_third_party_stays_in_its_room():
    wrong = []
    for name, imported, where in edges():
        top = imported.split(".")[0]
        if top in FENCES:
            allowed = any(within(name, room) for room in FENCES[top])
        else:
            allowed = top == "mailserver" or top in sys.stdlib_module_names
        if not allowed:
            wrong.append(f"{where}: {top} may be imported by {FENCES.get(top, 'nobody')} only")
    assert not wrong

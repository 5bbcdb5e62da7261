"""House rules that no reader should have to check: durability in one place, sizes, names, lock files."""

import ast
import functools
import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
SOURCES = sorted((PROJECT / "mailserver").rglob("*.py"))

# What makes a name appear, change or vanish, or forces it to disk. Mail is touched by store/durable only;
# each other file has its reason here.
NAMES_AND_SYNCS = {
    "fsync",
    "fdatasync",
    "sync",
    "rename",
    "renames",
    "replace",
    "link",
    "symlink",
    "unlink",
    "remove",
}
PATH_METHODS = {"unlink", "rename", "hardlink_to", "symlink_to"}  # "replace" is a method of str, too
ALLOWED = {
    "store/durable.py": "the one place for mail, with the steps of a commit in the next five",
    "store/disk.py": "a commit's steps, in order",
    "store/naming.py": "its names",
    "store/sync.py": "its sync",
    "store/task.py": "its undoing",
    "store/removal.py": "what it removes, and what POP3 deletes",
    "accounts/private_file.py": "removes what could not be begun",
    "receive/spill.py": "removes the file of a body that was never accepted",
    "control/server.py": "removes the control socket of a server that is gone",
    "host/disk.py": "tries whether anything can be written",
    "observe/logfile.py": "rotation renames log files",
}

LINES_PER_FILE = 350
LINES_PER_FUNCTION = 40  # without its docstring
LARGE_FILES: dict[str, str] = {
    "receive/wire.py": "one state machine from octets to replies, read in one go",
}
LARGE_FUNCTIONS: dict[str, str] = {}

EMPTY_NAMES = re.compile(r"(?:^|_)(?:utils?|base|common|managers?|helpers?|misc)(?:_|$)")


@functools.cache
def tree(path):
    return ast.parse(path.read_text())


def short(path):
    return path.relative_to(PROJECT / "mailserver").as_posix()


def syncs_and_renames(path):
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute):
            of_os = isinstance(node.value, ast.Name) and node.value.id == "os"
            if node.attr in NAMES_AND_SYNCS if of_os else node.attr in PATH_METHODS:
                yield node.lineno, node.attr
        elif isinstance(node, ast.ImportFrom) and node.module in ("os", "shutil"):
            yield from (
                (node.lineno, alias.name) for alias in node.names if alias.name in {*NAMES_AND_SYNCS, "move"}
            )


def test_only_durable_makes_and_removes_names_of_mail():
    found = {short(path): list(syncs_and_renames(path)) for path in SOURCES}
    assert not {name: calls for name, calls in found.items() if calls and name not in ALLOWED}


def test_files_are_short():
    sizes = {short(path): len(path.read_text().splitlines()) for path in SOURCES}
    assert not {
        name: size for name, size in sizes.items() if size > LINES_PER_FILE and name not in LARGE_FILES
    }


def functions(path):
    def walk(node, prefix):
        for child in ast.iter_child_nodes(node):
            name = f"{prefix}{child.name}" if hasattr(child, "name") else prefix
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                first = child.body[1:] if ast.get_docstring(child) else child.body
                start = first[0].lineno if first else child.end_lineno
                yield (
                    f"{short(path)}:{name}",
                    child.end_lineno - start + 1 + child.body[0].lineno - child.lineno,
                )
            named = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            yield from walk(child, f"{name}." if named else prefix)

    yield from walk(tree(path), "")


def test_functions_are_short():
    sizes = {name: size for path in SOURCES for name, size in functions(path)}
    assert not {
        name: size
        for name, size in sizes.items()
        if size > LINES_PER_FUNCTION and name not in LARGE_FUNCTIONS
    }


@pytest.mark.parametrize("table", ["ALLOWED", "LARGE_FILES", "LARGE_FUNCTIONS"])
def test_exceptions_that_are_no_longer_needed_are_gone(table):
    needed = {
        "ALLOWED": {short(path) for path in SOURCES if list(syncs_and_renames(path))},
        "LARGE_FILES": {
            short(path) for path in SOURCES if len(path.read_text().splitlines()) > LINES_PER_FILE
        },
        "LARGE_FUNCTIONS": {
            name for path in SOURCES for name, size in functions(path) if size > LINES_PER_FUNCTION
        },
    }
    assert set(globals()[table]) <= needed[table]


def test_names_say_what_is_inside():
    classes = [
        f"{short(path)}:{node.name}"
        for path in SOURCES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ClassDef) and re.search(r"(Manager|Helper|Utils?|Base)$", node.name)
    ]
    modules = [
        short(path)
        for path in SOURCES
        if any(EMPTY_NAMES.search(part) for part in path.with_suffix("").parts)
    ]
    assert not classes + modules


def test_every_module_says_what_it_is_for():
    assert not [short(path) for path in SOURCES if not ast.get_docstring(tree(path))]


@pytest.mark.parametrize("path", sorted((PROJECT / "requirements").glob("*.txt")), ids=lambda path: path.name)
def test_lock_files_hold_names_versions_and_hashes_only(path):
    pin = r"[a-z0-9][a-z0-9._-]*==[A-Za-z0-9.+!]+(?: ; [a-z_ <>=!\"'0-9.()-]+)? \\"
    line = re.compile(rf"(?:{pin}|    --hash=sha256:[0-9a-f]{{64}}(?: \\)?|#.*|)\Z")
    wrong = [text for text in path.read_text().splitlines() if not line.match(text)]
    assert not wrong
    assert "/" not in re.sub(r"#.*", "", path.read_text())


def test_the_ways_to_install_name_no_host():
    files = [
        PROJECT / name for name in ("Makefile", "Dockerfile", ".dockerignore", "pyproject.toml", ".ci/run")
    ]
    files += [path for path in (PROJECT / "packaging").rglob("*") if path.is_file()]
    assert not [path.name for path in files if path.exists() and re.search(r"\b\w+://\w", path.read_text())]


def test_every_c_file_is_compiled_and_make_does_it_again_when_one_changes():
    sources = {path.relative_to(PROJECT).as_posix() for path in (PROJECT / "mailserver").rglob("*.[ch]")}
    assert set(re.findall(r"\S+\.[ch]\b", (PROJECT / "Makefile").read_text())) == sources
    hook = (PROJECT / "packaging/compile_steps.py").read_text()
    (listed,) = re.findall(r"^SOURCES = .*?for name in \((.*?)\)", hook, re.S | re.M)
    assert set(re.findall(r"\w+", listed)) == {Path(name).stem for name in sources if name.endswith(".c")}

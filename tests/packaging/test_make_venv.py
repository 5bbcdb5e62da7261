"""Which environments packaging/make-venv keeps and which it makes anew; the interpreters only say who they are."""

import os
import subprocess
from pathlib import Path

MAKE_VENV = Path(__file__).resolve().parents[2] / "packaging" / "make-venv"
INTERPRETER = """#!/bin/sh
case "$*" in
  *"import pip"*) [ -e "$0.has-pip" ] && echo {name} ;;
  *base_prefix*) echo {name} ;;
  "-m venv"*) for dir; do :; done; mkdir -p "$dir/bin"; : >"$dir/bin/python.has-pip"; : >"$dir/pyvenv.cfg"
     ln -sf {path} "$dir/bin/python"
     case "$*" in *--clear*) echo {name}-cleared ;; *) echo {name} ;; esac >>made ;;
esac
"""


def test_an_environment_stays_unless_it_is_broken_or_another_python_is_asked_for(tmp_path):
    a, b = (tmp_path / f"the {name}" for name in "ab")
    for python in (a, b):
        python.write_text(INTERPRETER.format(name=python.name[-1], path=f"'{python}'"))
        python.chmod(0o755)
    environment = tmp_path / "env"

    def make(python):
        command = [MAKE_VENV, python, environment, "lock"]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
        return (tmp_path / "made").read_text().split()

    assert make(a) == ["a"]
    assert make(a) == make("") == ["a"]
    assert make(b) == ["a", "b-cleared"]
    os.unlink(environment / "bin" / "python.has-pip")  # as after an upgrade of the system's from 3.11 to 3.13
    assert make(b) == ["a", "b-cleared", "b-cleared"]
    os.symlink(tmp_path / "gone", tmp_path / "link")
    os.replace(tmp_path / "link", environment / "bin" / "python")
    assert make(a) == ["a", "b-cleared", "b-cleared", "a-cleared"]
    os.unlink(environment / "bin" / "python")
    os.unlink(environment / "pyvenv.cfg")  # somebody's folder: what is in it stays
    assert make(b)[-1] == "b"

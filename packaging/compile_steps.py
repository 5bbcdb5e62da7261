"""Compiles the C files of mailserver/store while the package is built or installed, where there is a C compiler.

Without one nothing is missing but speed: the same steps are then done in Python (mailserver/store/steps.py).
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCES = [
    f"mailserver/store/{name}.c"
    for name in ("steps", "parcel", "commit", "belt", "listing", "workers", "wire")
]
FLAGS = "-O2", "-Wall", "-shared", "-fPIC", "-pthread"
COMPILED = "mailserver/store/_steps.so"


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg]  # hatchling finds it by this name
    """A wheel that holds the compiled file is for this platform; it needs no certain Python."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - hatchling's signature
        """Called before files are gathered; for an editable installation too."""
        target = Path(self.root, COMPILED)
        if not compile_steps([Path(self.root, source) for source in SOURCES], target):
            target.unlink(missing_ok=True)  # of an older source
            return
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"
        build_data["artifacts"].append(COMPILED)


def compile_steps(sources: Sequence[Path], target: Path) -> bool:
    """Whether it could be done; why not goes to standard error. CC may have arguments, as make(1) has it."""
    named = shlex.split(os.environ.get("CC", ""))
    compiler = named or [found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))][:1]
    if not compiler:
        print(
            "mailserver: no C compiler: commits and large mailboxes will be somewhat slower", file=sys.stderr
        )
        return False
    command = [*compiler, *FLAGS, "-o", str(target), *map(str, sources)]
    try:
        subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        why = f"{error}\n{getattr(error, 'stderr', '')}"
        print(f"mailserver: commits and large mailboxes will be somewhat slower: {why}", file=sys.stderr)
        return False
    return True

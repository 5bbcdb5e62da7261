"""The configuration file → one frozen Config, or all of its faults at once.

``parse`` is pure: text in, settings out; what it has to know about the disk and the database are arguments.
``load`` reads the file for it. Relative paths are relative to the file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from mailserver.config import lines, semantics
from mailserver.config.faults import ConfigError, Fault
from mailserver.config.recipients import Known
from mailserver.config.schema import Config
from mailserver.config.shape import Finding, shaped
from mailserver.config.toml_fault import tree

Around = Callable[[Config], Iterable[Finding]]  # given settings with absolute paths


def nothing_around(_: Config) -> Iterable[Finding]:
    """Nothing is asked of the machine."""
    return ()


class Loaded(NamedTuple):
    """``sources[i]`` says where relay rule i stands: ``config.toml:12 [[relay]] 10.0.0.0/8``."""

    config: Config
    warnings: tuple[Fault, ...]
    sources: tuple[str, ...]

    def relay_rules(self) -> list[tuple[str, str, str]]:
        """What RelayTable.compile takes."""
        return [(r.from_, r.action, s) for r, s in zip(self.config.relay, self.sources, strict=True)]


def load(
    path: Path, known: Callable[[Config], Known] | None = None, around: Around = nothing_around
) -> Loaded:
    """Read and check ``path``. ``known`` tells, given the settings, who lives in the database besides;
    without it names that nobody in the file has are warnings. ``around``: what is wrong outside the file
    (host/surroundings.py). Blocking. Raises ConfigError with every fault."""
    name = str(path)
    try:
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        fault = Fault(
            name, 1, "file", "there is no such file", "name one with -c, or start from the sample config.toml"
        )
        raise ConfigError([fault]) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError([Fault(name, line, "file", "not UTF-8 text", "save it as UTF-8")]) from None
    except OSError as error:
        right = "make it a file that the server's user may read"
        raise ConfigError([Fault(name, 1, "file", f"cannot be read ({error.strerror})", right)]) from None
    return parse(text, name, base=Path(os.path.abspath(path)).parent, known=known, around=around)


def parse(
    text: str,
    filename: str,
    *,
    base: Path = Path(),
    known: Callable[[Config], Known] | None = None,
    around: Around = nothing_around,
) -> Loaded:
    """``text`` → settings. ``base`` is what relative paths start from. Raises ConfigError with every
    fault."""
    text = text.removeprefix("\ufeff")
    parsed = tree(text, filename)
    if isinstance(parsed, Fault):
        raise ConfigError([parsed])
    config, findings = shaped(parsed)
    misshapen = [finding.path for finding in findings]
    if config is not None:
        whole = _absolute(config, base)
        findings += [
            finding
            for finding in semantics.check(config, known=known(whole) if known else None)
            if not any(_inside(finding.path, path) for path in misshapen)
        ]
        wrong = [finding.path for finding in findings if not finding.warning]
        findings += [
            finding for finding in around(whole) if not any(_inside(finding.path, path) for path in wrong)
        ]
    where = lines.locate(text) if findings or (config and config.relay) else {}
    faults = [_at_line(f, where, filename) for f in findings if not f.warning]
    warnings = sorted((_at_line(f, where, filename) for f in findings if f.warning), key=lambda f: f.line)
    if faults or config is None:
        raise ConfigError(faults, warnings)
    return Loaded(_absolute(config, base), tuple(warnings), _sources(config, where, filename))


def _inside(path: lines.Path, misshapen: lines.Path) -> bool:
    """Whether ``path`` belongs to what has no right shape: that is not judged for its meaning. Of a list
    with one wrong element all the others are left out too."""
    around = misshapen[:-1] if isinstance(misshapen[-1], int) and misshapen[0] != "relay" else misshapen
    return path[: len(around)] == around


def _at_line(finding: Finding, where: dict[lines.Path, int], filename: str) -> Fault:
    key = lines.dotted(finding.path)
    return Fault(filename, lines.line_of(where, finding.path), key, finding.wrong, finding.right)


def _sources(config: Config, where: dict[lines.Path, int], filename: str) -> tuple[str, ...]:
    name = os.path.basename(filename)
    return tuple(
        f"{name}:{lines.line_of(where, ('relay', n))} [[relay]] {rule.from_}"
        for n, rule in enumerate(config.relay)
    )


def _absolute(config: Config, base: Path) -> Config:
    tls, confine = config.tls, config.confine
    files = {
        n: base / path for n in ("certificate", "key", "client_ca") if (path := getattr(tls, n)) is not None
    }
    pairs = tuple(
        pair.model_copy(
            update={"certificate": base / pair.certificate, "key": base / (pair.key or pair.certificate)}
        )
        for pair in tls.certificates
    )
    update = {
        "data_dir": base / config.data_dir,
        "tls": tls.model_copy(update={**files, "certificates": pairs}),
        "confine": confine.model_copy(
            update={name: tuple(base / path for path in getattr(confine, name)) for name in ("read", "write")}
        ),
    }
    return config.model_copy(update=update)

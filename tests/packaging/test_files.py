"""What is shipped beside the code: the unit, the image's files."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
UNIT = PROJECT / "packaging" / "mailserver.service"


def test_systemd_accepts_the_unit(tmp_path):
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    shipped = tmp_path / "mailserver.service"
    shipped.write_text(UNIT.read_text().replace("/opt/mailserver/bin/mailserver", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(shipped)], capture_output=True, text=True, check=False
    )
    complaints = [line for line in done.stderr.splitlines() if "mailserver.service" in line]
    assert not complaints


def test_systemd_counts_the_unit_among_the_well_protected():
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=15", "--no-pager", str(UNIT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd cannot judge a file")
    assert done.returncode == 0, done.stdout.splitlines()[-1]


def test_the_unit_lets_the_server_confine_itself():
    filters = re.findall(r"^SystemCallFilter=(.*)$", UNIT.read_text(), re.MULTILINE)
    assert "landlock_create_ruleset landlock_add_rule landlock_restrict_self" in filters


def test_the_unit_runs_an_ordinary_user_with_one_capability():
    settings = dict(re.findall(r"^(\w+)=(.*)$", UNIT.read_text(), re.MULTILINE))
    assert settings["User"] == "mailserver"
    assert settings["Type"] == "notify"
    assert settings["AmbientCapabilities"] == settings["CapabilityBoundingSet"] == "CAP_NET_BIND_SERVICE"
    assert settings["NoNewPrivileges"] == "yes"
    assert settings["ProtectSystem"] == "strict"
    assert int(settings["WatchdogSec"]) > 0


def instructions():
    text = re.sub(r"^#.*\n", "", (PROJECT / "Dockerfile").read_text(), flags=re.MULTILINE).replace(
        "\\\n", " "
    )
    return [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]


def test_the_image_is_built_in_two_stages_from_pinned_packages():
    words = instructions()
    assert [name for name, _ in words].count("FROM") == 2
    (lock_install,) = [text for name, text in words if name == "RUN" and "run.txt" in text]
    assert lock_install.count("--require-hashes") == 2
    (package,) = [text for name, text in words if name == "RUN" and "pip wheel" in text]
    assert package.count("--no-deps") == package.count("--no-index") == 2


def test_the_image_keeps_the_promises_of_its_readme():
    words = dict(instructions())
    assert words["USER"] == "5000:5000"
    assert words["VOLUME"] == "/var/lib/mailserver"
    assert words["STOPSIGNAL"] == "SIGTERM"
    assert words["EXPOSE"] == "25 110"
    assert words["HEALTHCHECK"].endswith('CMD ["mailserver", "health"]')
    assert (words["ENTRYPOINT"], words["CMD"]) == ('["mailserver"]', '["serve"]')


def test_the_build_context_lets_in_what_is_copied_and_nothing_else():
    allowed = {
        line[1:] for line in (PROJECT / ".dockerignore").read_text().splitlines() if line.startswith("!")
    }
    copied = {
        source
        for name, text in instructions()
        if name == "COPY" and not text.startswith("--from")
        for source in text.split()[:-1]
    }
    assert {
        source.split("/")[0] if source.startswith("requirements/") else source for source in copied
    } == allowed

"""`make test-tools` on machines that lack something: its script runs beside an apt-get that notes what it is asked."""

import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from repository import REPOSITORY

NEEDED = ("bash", "env", "grep", "cut", "sort", "awk", "chmod")
TOOLS = ("chromium", "prometheus", "promtool", "shellcheck", "kubectl", "curl", "ip", "tc")
APT_GET = """#!/usr/bin/env bash
echo "apt-get $*" >> {calls}
package="${{*: -1}}"
[ "$1" = install ] || exit 0
[ "$package" != chromium ] || [ -z "{has_no_chromium}" ] || exit 100
names="$package"
[ "$package" != prometheus ] || names="prometheus promtool"
[ "$package" != kubernetes-client ] || names=kubectl
[ "$package" != iproute2 ] || names="ip tc"
for name in $names; do echo > {programs}/$name; chmod +x {programs}/$name; done
"""


class Machine:
    """A folder of programs that is all that the script finds."""

    def __init__(self, programs: Path, user: int = 0) -> None:
        self.programs, self.calls = programs, programs / "calls"
        for name in NEEDED:
            (programs / name).symlink_to(shutil.which(name) or pytest.fail(name))
        self.add("id", f"#!/usr/bin/env bash\necho {user}\n")

    def add(self, name: str, text: str = "") -> None:
        (self.programs / name).write_text(text)
        (self.programs / name).chmod(0o755)

    def add_apt_get(self, has_no_chromium: str = "") -> None:
        self.add("apt-get", APT_GET.format(calls=self.calls, programs=self.programs, has_no_chromium=has_no_chromium))

    def install(self) -> SimpleNamespace:
        script = REPOSITORY / "tests" / "install_tools.sh"
        ended = subprocess.run([script], env={"PATH": str(self.programs)}, capture_output=True, text=True, check=False)
        calls = self.calls.read_text().splitlines() if self.calls.exists() else []
        return SimpleNamespace(code=ended.returncode, out=ended.stdout, err=ended.stderr, calls=calls)


def test_nothing_is_asked_for_where_all_is_there(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.add_apt_get()
    for name in (*TOOLS[1:], "google-chrome"):
        machine.add(name)
    installed = machine.install()
    assert (installed.code, installed.calls) == (0, []), installed.err


def test_what_is_missing_is_installed_once(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.add_apt_get()
    machine.add("curl")
    installed = machine.install()
    assert installed.code == 0, installed.err
    assert installed.calls[0].startswith("apt-get update")
    packages = [call.split()[-1] for call in installed.calls[1:]]
    assert packages == ["chromium", "iproute2", "kubernetes-client", "prometheus", "shellcheck"]
    assert len(machine.install().calls) == len(installed.calls), "the second time, there is nothing to do"


def test_package_that_the_release_does_not_have_is_named(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.add_apt_get(has_no_chromium="yes")
    installed = machine.install()
    assert installed.code == 1
    assert "still missing" in installed.err
    assert "  chromium (package chromium)" in installed.err
    assert shutil.which("shellcheck", path=str(tmp_path)), "the others are there all the same"


def test_system_without_apt_get_is_told_what_to_install(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.add("shellcheck")
    installed = machine.install()
    assert installed.code == 1
    assert "there is no apt-get here" in installed.err
    assert installed.err.splitlines()[1:] == ["chromium", "prometheus", "promtool", "kubectl", "curl", "ip", "tc"]


def test_a_user_needs_sudo(tmp_path: Path) -> None:
    machine = Machine(tmp_path, user=1000)
    machine.add_apt_get()
    refused = machine.install()
    assert refused.code == 1
    assert "neither root nor sudo; let an administrator run: apt-get install chromium curl" in refused.err
    machine.add("sudo", f'#!/usr/bin/env bash\necho "sudo $*" >> {machine.calls}\n"$@"\n')
    installed = machine.install()
    assert installed.code == 0, installed.err
    assert installed.calls[0].startswith("sudo apt-get update")

import subprocess
from pathlib import Path

import pytest
from repository import REPOSITORY
from skips import tool


@pytest.mark.parametrize("script", sorted(REPOSITORY.glob("[!.]*/**/*.sh")), ids=lambda path: path.name)
def test_shell_scripts_are_sound(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    subprocess.run([tool("shellcheck"), "--external-sources", "--source-path", REPOSITORY, script], check=True)

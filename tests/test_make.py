"""`make` before an installation that would fill the disk."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def a_disk(folder: Path, free_kib: int) -> dict[str, str]:
    """The environment in which `df` reports so much free."""
    df = folder / "df"
    df.write_text(f"#!/bin/sh\necho Filesystem 1024-blocks Used Available\necho /dev/sda 99999999 1 {free_kib} 1% /\n")
    df.chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


@pytest.mark.parametrize("environment", ["VENV", "PEERS_VENV"])
def test_a_disk_too_full_for_an_environment_is_said_before_anything_is_installed(
    tmp_path: Path, environment: str
) -> None:
    wanted = tmp_path / "environment"
    run = subprocess.run(
        ["make", f"{environment}={wanted}", str(wanted / "installed")],
        cwd=ROOT,
        env=a_disk(tmp_path, 5 * 1024 * 1024),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 2
    assert "takes 6 GiB" in run.stderr and f"{ROOT} has 5 GiB free: make room" in run.stderr
    assert not wanted.exists()


def test_a_disk_with_room_is_no_matter(tmp_path: Path) -> None:
    check = [str(shutil.which("sh")), str(ROOT / "scripts/room-on-disk.sh"), "6", "it"]
    run = subprocess.run(check, env=a_disk(tmp_path, 6 * 1024 * 1024), capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")

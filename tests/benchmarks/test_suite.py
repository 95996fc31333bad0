"""`make bench` makes every record that the README, its checks and the pages read."""

import ast
from pathlib import Path

import pytest

from benchmarks import figures, pages, readme, suite
from benchmarks.claims import CLAIMS
from benchmarks.recording import RESULTS

SCRIPTS = Path(suite.__file__).parent
# What `make bench` leaves out: it needs a GPU, or root and debootstrap.
ELSEWHERE = {"gpu_runtime", "docker_steps"}
MADE = {claim[1] if claim[0] == "demo" else claim[0] for claim in (*suite.COUNTED, *suite.TIMED)}


def recorded_by(script: Path) -> set[str]:
    """The names that a script passes to `record` as they stand."""
    calls = [node for node in ast.walk(ast.parse(script.read_text())) if isinstance(node, ast.Call)]
    named = [one for one in calls if isinstance(one.func, ast.Name) and one.func.id == "record" and one.args]
    return {str(one.args[0].value) for one in named if isinstance(one.args[0], ast.Constant)}


@pytest.mark.parametrize("script", sorted(SCRIPTS.glob("*.py")), ids=lambda path: path.stem)
def test_a_script_that_records_is_in_the_suite(script: Path) -> None:
    assert recorded_by(script) <= MADE | ELSEWHERE | {"suite"}


def test_what_is_read_is_made() -> None:
    read = {row.record for row in figures.ROWS} | {claim.record for claim in CLAIMS} | {readme.DEMO.stem}
    read |= {section.source.stem for section in pages.SECTIONS if section.source.is_relative_to(RESULTS)}
    assert read <= MADE


def test_every_record_has_a_script() -> None:
    assert {path.stem for path in RESULTS.glob("*.json")} <= MADE | ELSEWHERE | {"suite"}

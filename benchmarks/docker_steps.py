"""The Dockerfiles' steps, run for real without a Docker engine: in an Ubuntu of the image's release.

Every RUN, COPY, ENV, WORKDIR and USER of each image runs in a fresh chroot made by debootstrap: apt, the virtual
environment, pip with the pinned versions, the user. Left out is what comes from NVIDIA alone: the base image, and the
packages of TensorRT. Then, as the image's own user: `trtq doctor`, the image's health check, `trtq lint`, `trtq layers`
and `trtq report` on a recipe that the workstation built. Last, pip is asked for each installed version as an aarch64
wheel, which is what a Jetson installs. It needs root and debootstrap, and takes about five minutes.

    python -m benchmarks.docker_steps --python-for-focal FOLDER

FOLDER: what `COPY --from=python` brings to JetPack 5.1's image, a /usr/local with Python 3.10 for glibc 2.31. Without
it that image is not run.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.dockerfiles import argument, chain, environment, replaced
from benchmarks.recording import ROOT, record

MIRROR = "http://archive.ubuntu.com/ubuntu"
NVIDIAS = "libnvinfer"
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
WHEELS = ("manylinux2014_aarch64", *(f"manylinux_2_{minor}_aarch64" for minor in range(17, 32)))
RECIPE = """\
[model]
name = "yolov7-tiny"
[model.arguments]
num_classes = 10
width = 0.125
[data]
name = "digit-scenes"
image_size = 64
train_images = 16
calibration_images = 16
validation_images = 8
batch = 8
[quantization]
calibrator = "max"
exclude = ["detect.*"]
[engine]
backends = ["ort"]
"""


@dataclass(frozen=True)
class Image:
    """One image: its file, its build arguments, and the Ubuntu that its base holds."""

    name: str
    dockerfile: str
    ubuntu: str
    arguments: Mapping[str, str] = field(default_factory=dict)


# The GPU image without torch, which is gigabytes and which `make` installs by the same constraints.
IMAGES = (
    Image("x86-64", "Dockerfile", "noble", {"EXTRAS": "ort"}),
    Image("jetpack-5.1", "docker/orin.Dockerfile", "focal", {"JETPACK": "5.1"}),
    Image("jetpack-6.0", "docker/orin.Dockerfile", "jammy", {"JETPACK": "6.0"}),
    Image("jetpack-6.2", "docker/orin.Dockerfile", "jammy", {"JETPACK": "6.2", "EXTRAS": "ort"}),
    Image("jetpack-7.2", "docker/orin.Dockerfile", "noble", {"JETPACK": "7.2"}),
)


class Chroot:
    """A root file system in which a Dockerfile's steps run, one after the other."""

    def __init__(self, root: Path, python: Path | None) -> None:
        self.root = root
        self.python = python
        self.env = {"PATH": SYSTEM_PATH, "HOME": "/root", "LANG": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
        self.arguments: dict[str, str] = {}
        self.folder, self.user = "/", "0"
        self.left_out: list[str] = []

    def step(self, word: str, rest: str, given: Mapping[str, str]) -> None:
        """Do one instruction; raises `subprocess.CalledProcessError` where it fails."""
        known = {**self.env, **self.arguments}
        if word == "ARG":
            self.arguments |= argument(rest, given)
        elif word == "ENV":
            self.env |= environment(rest, known)
        elif word == "WORKDIR":
            self.folder = replaced(rest, known)
            (self.root / self.folder.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif word == "USER":
            self.user = rest
        elif word == "COPY":
            self.copy(shlex.split(replaced(rest, known)))
        elif word == "RUN":
            self.run(rest)

    def copy(self, words: Sequence[str]) -> None:
        """Copy from the repository, or what `--from=python` stands for."""
        *sources, target = [word for word in words if not word.startswith("--")]
        if words[0].startswith("--from="):
            if self.python is None:
                raise FileNotFoundError("no Python 3.10 for this Ubuntu was given")
            shutil.copytree(self.python, self.root / target.lstrip("/"), symlinks=True, dirs_exist_ok=True)
            self.left_out.append(f"COPY {' '.join(words)}: a Python of the same version, compiled for this Ubuntu")
            return
        folder = self.root / str(Path(self.folder) / target).lstrip("/")
        folder.mkdir(parents=True, exist_ok=True)
        for source in map(ROOT.joinpath, sources):
            if source.is_dir():
                shutil.copytree(source, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, folder)

    def run(self, command: str, *, user: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a shell command with the instructions' environment, NVIDIA's packages left out of it."""
        wanted = self.env.get("TRTQ_PACKAGES", "").split()
        env = {**self.env, **self.arguments}
        if any(NVIDIAS in one for one in wanted):
            left = [one for one in wanted if NVIDIAS in one]
            env["TRTQ_PACKAGES"] = " ".join(one for one in wanted if one not in left)
            self.left_out += [one for one in (f"packages {', '.join(left)}",) if one not in self.left_out]
        who = user or self.user
        done = subprocess.run(
            ["chroot", f"--userspec={who}:{who}", self.root, "/bin/sh", "-c", f"cd {self.folder} && {command}"],
            env={**env, **certificates(self.root)},
            capture_output=True,
            text=True,
            check=False,
        )
        if check and done.returncode:
            print(done.stdout[-2000:], done.stderr[-4000:], file=sys.stderr)
            done.check_returncode()
        return done


def certificates(root: Path) -> dict[str, str]:
    """Let pip trust whom this machine's pip trusts, where that was set."""
    given = os.environ.get("PIP_CERT")
    if not given:
        return {}
    inside = root / "etc/ssl/rehearsal.crt"
    inside.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(given, inside)
    return {"PIP_CERT": "/etc/ssl/rehearsal.crt"}


@contextmanager
def ubuntu(release: str, bases: Path, scratch: Path) -> Iterator[Path]:
    """Yield a fresh root file system of an Ubuntu release, with /proc; it goes at the end."""
    base, root = bases / f"chroot-{release}", scratch / f"root-{release}"
    if not base.is_dir():
        components = "--components=main,universe"
        command = ["debootstrap", "--no-check-gpg", "--variant=minbase", components, release, base, MIRROR]
        subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["cp", "-a", "--one-file-system", base, root], check=True)
    shutil.copyfile("/etc/resolv.conf", root / "etc/resolv.conf")
    (root / "proc").mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "proc", "proc", root / "proc"], check=True)
    try:
        yield root
    finally:
        subprocess.run(["umount", root / "proc"], check=True)
        shutil.rmtree(root)


def rehearse(image: Image, root: Path, python: Path | None, material: Path) -> dict[str, Any]:
    """Run an image's steps in `root`, use what came out as its user would, and return what happened."""
    base, steps = chain((ROOT / image.dockerfile).read_text(), image.arguments)
    chroot, seconds = Chroot(root, python), []
    for one in steps:
        started = time.monotonic()
        chroot.step(one.word, one.rest, image.arguments)
        if one.word == "RUN":
            seconds.append(round(time.monotonic() - started, 1))
            print(f"  {seconds[-1]:6.1f} s  {' '.join(one.rest.split())[:100]}", flush=True)
    workspace = root / "workspace"
    shutil.copytree(material, workspace, dirs_exist_ok=True)
    subprocess.run(["chown", "-R", f"{chroot.user}:{chroot.user}", workspace], check=True)
    return {
        "base": base,
        "ubuntu": image.ubuntu,
        "arguments": dict(image.arguments),
        "run_s": seconds,
        "left_out": [f"base image {base}", *chroot.left_out],
        "user": chroot.user,
        "installed_mib": {name: mib(root / name) for name in ("opt/trtq", "usr")},
        "packages": chroot.run("pip list --format freeze --local").stdout.split(),
        "without_an_aarch64_wheel": without_wheel(chroot),
        "used": used(chroot, health(steps)),
    }


def health(steps: Sequence[Any]) -> list[str]:
    """Return the command of an image's health check."""
    rest = next(one.rest for one in steps if one.word == "HEALTHCHECK")
    command: list[str] = json.loads(rest[rest.index("[") :])
    return command


def used(chroot: Chroot, health_command: Sequence[str]) -> dict[str, Any]:
    """Use trtq as the image's user; raises where it does otherwise than it should."""
    told = json.loads(chroot.run("trtq doctor --json").stdout)
    sick = chroot.run(shlex.join(health_command), check=False)
    if sick.returncode != 3 or "Traceback" in sick.stderr:
        raise RuntimeError(f"the health check ended with {sick.returncode} where no GPU is: {sick.stderr}")
    lint = chroot.run("trtq lint demo/ptq/model.onnx --json", check=False)
    layers = json.loads(chroot.run("trtq layers demo/ptq/predicted.json --json").stdout)
    page = chroot.run("trtq report demo.toml").stdout.strip()
    planned = chroot.run("trtq build demo/ptq/model.onnx --dry-run --tensorrt 10.3").stdout
    return {
        "python": told["machine"]["python"],
        "user": chroot.run("id --user").stdout.strip(),
        "works": [f"{one['backend']} {one['does']}".strip() for one in told["abilities"] if one["works"]],
        "health": sick.stderr.strip(),
        "lint": {"code": lint.returncode, "findings": len(json.loads(lint.stdout)["findings"])},
        "layers": layers["layers"],
        "report_bytes": (chroot.root / page.lstrip("/")).stat().st_size,
        "trtexec_commands": sum(line.startswith("$ ") for line in planned.splitlines()),
    }


def without_wheel(chroot: Chroot) -> list[str]:
    """Return the installed versions that pip finds no aarch64 wheel of."""
    pins = [
        one for one in chroot.run("pip list --format freeze --local").stdout.split() if not one.startswith("trtq==")
    ]
    platforms = " ".join(f"--platform {one}" for one in WHEELS)
    ask = f"pip download --quiet --no-deps --only-binary :all: --dest /tmp/wheels {platforms}"
    if chroot.run(f"{ask} {' '.join(pins)}", check=False).returncode == 0:
        return []
    return [one for one in pins if chroot.run(f"{ask} {one}", check=False).returncode]


def mib(folder: Path) -> int:
    """Return what a folder takes on the disk."""
    done = subprocess.run(["du", "-sm", folder], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[0])


def built(scratch: Path) -> Path:
    """Build the small recipe that the images are tried with; return the folder that holds it."""
    folder = scratch / "material"
    folder.mkdir()
    (folder / "demo.toml").write_text(RECIPE)
    subprocess.run([sys.executable, "-m", "trtq", "build", folder / "demo.toml", "--mode", "ptq"], check=True)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python-for-focal", type=Path, help="a /usr/local with Python 3.10 for Ubuntu 20.04")
    parser.add_argument("--bases", type=Path, help="where Ubuntu's root file systems are kept from run to run")
    parser.add_argument("--image", action="append", choices=[one.name for one in IMAGES], help="one of them alone")
    options = parser.parse_args()
    if os.geteuid() or not shutil.which("debootstrap"):
        raise SystemExit("docker_steps: needs root, for chroot, and debootstrap (apt-get install debootstrap)")
    images: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        material = built(scratch)
        for image in IMAGES:
            if options.image and image.name not in options.image:
                continue
            print(image.name, flush=True)
            if image.ubuntu == "focal" and options.python_for_focal is None:
                images[image.name] = {"not_run": "no Python 3.10 for Ubuntu 20.04 was given (--python-for-focal)"}
                continue
            with ubuntu(image.ubuntu, options.bases or scratch, scratch) as root:
                images[image.name] = rehearse(image, root, options.python_for_focal, material)
    print(json.dumps({name: one.get("used", one) for name, one in images.items()}, indent=1))
    if not options.image:
        record("docker_steps", "python -m benchmarks.docker_steps --python-for-focal FOLDER", {"images": images})


if __name__ == "__main__":
    main()

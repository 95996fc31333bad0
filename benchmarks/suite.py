"""Every claim's script, and how long each took; goes on behind one that fails.

    python -m benchmarks.suite [--peers PYTHON] [CLAIM ...]

`make bench` runs it, and then writes the README's and the pages' tables. Exit code 1 where a claim's script failed.
First come the claims about counts, bytes and shares, two at a time; then those about times, each alone.
--peers: an interpreter that has benchmarks/peers.txt; without one, what is measured against those tools is left out.
"""

from __future__ import annotations

import argparse
import compileall
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.recording import ROOT, record

PEERS = "PEERS"
Claim = tuple[str, ...]
# Each is a module of this folder with its arguments; PEERS stands for the interpreter of that name.
COUNTED: tuple[Claim, ...] = (
    ("rtx_builds",),
    ("fp16_pass", "--modelopt", PEERS),
    ("published_rules",),
    ("predictor",),
    ("producers",),
    ("hostile_files",),
    ("bench_statistics",),
    ("unify_properties",),
    ("resnet_fusion",),
    ("fuzzed_readers",),
    ("readers",),
    ("bench_logs",),
    ("calibration_cache",),
)
TIMED: tuple[Claim, ...] = (
    ("demo", "yolov7-tiny-digits"),
    ("demo", "mobilenet_v2-digits"),
    ("bench_ort",),
    ("ort_native",),
    ("unify_cost", "--modelopt", PEERS),
    ("ptq_peers", "--modelopt", PEERS),
    ("ptq_growth", "--modelopt", PEERS),
    ("rtx_bare",),
    ("engine_diffs",),
    ("report_cost",),
    ("startup",),
)
AT_ONCE = 2


def main() -> int:
    """Run the claims and record their times; return how many failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("claims", nargs="*", metavar="CLAIM", help="some of them; the times are then not recorded")
    parser.add_argument("--peers", type=Path, help="an interpreter that has benchmarks/peers.txt")
    options = parser.parse_args()
    started = time.perf_counter()
    compileall.compile_dir(ROOT / "trtq", quiet=1)  # as pip does what it installs; else the first claim pays for all
    seconds: dict[str, float] = {}
    failed: list[str] = []
    with tempfile.TemporaryDirectory() as networks:
        for claims, at_once in ((COUNTED, AT_ONCE), (TIMED, 1)):
            wanted = [one for one in claims if not options.claims or one[0] in options.claims]
            possible = [one for one in wanted if options.peers or PEERS not in one]
            with ThreadPoolExecutor(at_once) as pool:
                for name, took, code in pool.map(lambda one: measure(one, options.peers, Path(networks)), possible):
                    seconds[name] = took
                    failed += [name] if code else []
    total = round((time.perf_counter() - started) / 60, 1)
    print(f"{len(seconds)} claims in {total} min, {len(failed)} failed")
    if not options.claims:
        record("suite", "make bench", {"minutes": total, "seconds": seconds, "failed": failed})
    return len(failed)


def measure(claim: Claim, peers: Path | None, networks: Path) -> tuple[str, float, int]:
    """Run one claim's script; return its name, seconds and exit code. networks: what several claims look at."""
    words = [str(peers) if word == PEERS else word for word in claim[1:]]
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{claim[0]}", *words],
        cwd=ROOT,
        env={**os.environ, "TRTQ_NETWORKS": str(networks)},
        check=False,
    )
    seconds = round(time.perf_counter() - started, 1)
    name = " ".join(claim)
    print(f"{name}: {seconds} s{', FAILED' if done.returncode else ''}", flush=True)
    return name, seconds, done.returncode


if __name__ == "__main__":
    sys.exit(bool(main()))

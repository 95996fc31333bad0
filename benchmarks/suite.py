"""Every claim, one script after the other, and how long each took; goes on behind one that fails.

    python -m benchmarks.suite [--peers PYTHON] [CLAIM ...]

`make bench` runs it, and then writes the README's and the pages' tables. Exit code 1 where a claim's script failed.
--peers: an interpreter that has benchmarks/peers.txt; without one, what is measured against those tools is left out.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.recording import ROOT, record

PEERS = "PEERS"
# Each is a module of this folder with its arguments; PEERS stands for the interpreter of that name.
CLAIMS = (
    ("published_rules",),
    ("resnet_fusion",),
    ("producers",),
    ("unify_properties",),
    ("unify_cost", "--modelopt", PEERS),
    ("calibration_cache",),
    ("fp16_pass", "--modelopt", PEERS),
    ("ptq_peers", "--modelopt", PEERS),
    ("ptq_growth", "--modelopt", PEERS),
    ("ort_native",),
    ("rtx_builds",),
    ("rtx_bare",),
    ("hostile_files",),
    ("readers",),
    ("fuzzed_readers",),
    ("predictor",),
    ("engine_diffs",),
    ("report_cost",),
    ("bench_statistics",),
    ("bench_logs",),
    ("bench_ort",),
    ("demo", "engines/yolov7-tiny-digits.toml"),
    ("demo", "engines/mobilenet_v2-digits.toml"),
    ("startup",),
)


def main() -> int:
    """Run the claims and record their times; return how many failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("claims", nargs="*", metavar="CLAIM", help="some of them; the times are then not recorded")
    parser.add_argument("--peers", type=Path, help="an interpreter that has benchmarks/peers.txt")
    options = parser.parse_args()
    seconds: dict[str, float] = {}
    failed: list[str] = []
    for claim in CLAIMS:
        if (options.claims and claim[0] not in options.claims) or (PEERS in claim and options.peers is None):
            continue
        name = " ".join(claim)
        words = [str(options.peers) if word == PEERS else word for word in claim[1:]]
        started = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", f"benchmarks.{claim[0]}", *words], cwd=ROOT, check=False)
        seconds[name] = round(time.perf_counter() - started, 1)
        if done.returncode:
            failed.append(name)
        print(f"{name}: {seconds[name]} s{', FAILED' if done.returncode else ''}", flush=True)
    total = round(sum(seconds.values()) / 60, 1)
    print(f"{len(seconds)} claims in {total} min, {len(failed)} failed")
    if not options.claims:
        record("suite", "make bench", {"minutes": total, "seconds": seconds, "failed": failed})
    return len(failed)


if __name__ == "__main__":
    sys.exit(bool(main()))

"""What holds for generated Q/DQ graphs, with the histogram of what was generated: runs tests/qdq/test_properties.py.

python -m benchmarks.unify_properties
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

from benchmarks.recording import ROOT, record

TEST = "tests/qdq/test_properties.py"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", TEST, f"--junitxml={report}", "-o", "junit_family=xunit1"]
        subprocess.run(command, cwd=ROOT, check=True)
        [case] = ElementTree.parse(report).getroot().iter("testcase")
    histogram = {one.attrib["name"]: int(one.attrib["value"]) for one in case.iter("property")}
    result = {"test": f"{TEST}::{case.attrib['name']}", "seconds": float(case.attrib["time"]), "histogram": histogram}
    record("unify_properties", "python -m benchmarks.unify_properties", result)


if __name__ == "__main__":
    main()

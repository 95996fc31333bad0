"""What reading a file costs before it is read."""

import subprocess
import sys


def test_reading_a_network_imports_no_computer_algebra() -> None:
    # onnx-ir from 0.2 on imports sympy: 0.3 s in front of every command that opens a file.
    code = "import sys, trtq.qdq, trtq.rules\nassert 'sympy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

"""Benchmarks: timing in turn, raw times kept, honest comparison."""

from trtq.bench.compare import Speed, Verdict, compare
from trtq.bench.result import BenchResult, from_json
from trtq.bench.timing import interleaved

__all__ = ["BenchResult", "Speed", "Verdict", "compare", "from_json", "interleaved"]

"""Benchmarks: timing in turn, raw times kept, honest comparison."""

from trtq.bench.compare import Speed, Verdict, compare, differences
from trtq.bench.result import BenchResult, Stated, from_json
from trtq.bench.store import BenchRun, Pair
from trtq.bench.timing import interleaved, measure

__all__ = [
    "BenchResult",
    "BenchRun",
    "Pair",
    "Speed",
    "Stated",
    "Verdict",
    "compare",
    "differences",
    "from_json",
    "interleaved",
    "measure",
]

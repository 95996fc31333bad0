"""How an engine is to be timed, in trtexec's words; the defaults are those of the reference runs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from trtq.errors import ConfigError

# Many more than a processor has cores take minutes to start, and hold up the whole machine.
MOST_THREADS = 1024


@dataclass(frozen=True)
class BenchOptions:
    """What trtexec calls --warmUp, --duration, --iterations, --infStreams, --useCudaGraph, --useSpinWait and so on.

    warm_up_ms, duration_s: of each engine. iterations: the fewest runs. batch: of an engine whose batch is dynamic.
    streams: runs that overlap. threads: of the processor, for engines that run there. seed: of the random input.
    clock: "cpu" takes the processor time of the one thread that runs, which other work lengthens less.
    """

    warm_up_ms: float = 500.0
    duration_s: float = 10.0
    iterations: int = 10
    batch: int | None = None
    streams: int = 1
    cuda_graph: bool = True
    spin_wait: bool = True
    data_transfers: bool = False
    threads: int = 1
    seed: int = 0
    clock: Literal["wall", "cpu"] = "wall"

    def __post_init__(self) -> None:
        for name, least in (("iterations", 1), ("streams", 1), ("threads", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        if self.threads > MOST_THREADS:
            raise ConfigError(f"threads is {self.threads}; no more than {MOST_THREADS} are started")
        if not 0 <= self.warm_up_ms < float("inf") or not 0 <= self.duration_s < float("inf"):
            raise ConfigError("warm-up and duration must be finite and not negative")
        if self.clock == "cpu" and self.threads > 1:
            raise ConfigError(
                f"processor time is of one thread, and {self.threads} were asked for; leave --cpu-time out"
            )
        if self.batch is not None and self.batch < 1:
            raise ConfigError(f"the batch is {self.batch}; it must be at least 1")

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)


REFERENCE = BenchOptions()

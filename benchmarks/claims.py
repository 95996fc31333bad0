"""What the benchmarks claim: which figures of which record, which way is better, and how much worse is still the same.

A figure is named by its keys joined with `/`; `*` stands for any one key. Counts and bytes have no tolerance: they
follow from the code alone. A ratio of two times of one run has that of a shared machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Better = Literal["lower", "higher", "equal"]
TIME_TOLERANCE = 0.25  # of a ratio of times, each the median of a few runs on two shared cores
MEMORY_TOLERANCE = 0.10
ACCURACY_TOLERANCE = 0.01  # of a fraction of images; another CPU rounds otherwise


@dataclass(frozen=True)
class Claim:
    """Figures of one record that must not get worse by more than `tolerance`, a fraction of the recorded figure."""

    record: str
    figure: str
    better: Better
    tolerance: float = 0.0


CLAIMS = (
    Claim("published_rules", "networks/*/trtq/double_writes", "lower"),
    Claim("published_rules", "networks/*/trtq/requantizes", "lower"),
    Claim("published_rules", "networks/*/trtq/float_writes", "lower"),
    Claim("published_rules", "networks/*/trtq/traffic_bytes", "lower"),
    Claim("published_rules", "networks/*/trtq/int8_share", "higher"),
    Claim("published_rules", "networks/*/double_writes_named_by_diff", "higher"),
    Claim("resnet_fusion", "placements/*/*/after/predicted_conversions", "lower"),
    Claim("resnet_fusion", "placements/*/*/after/traffic_bytes", "lower"),
    Claim("producers", "fork/*/built_mended/int8_convolutions", "higher"),
    Claim("producers", "table_agrees", "higher"),
    Claim("unify_properties", "histogram/edited", "higher", 0.1),
    Claim("unify_cost", "networks/*/of_floor/lint/time", "lower", TIME_TOLERANCE),
    Claim("unify_cost", "networks/*/of_floor/lint/memory", "lower", MEMORY_TOLERANCE),
    Claim("unify_cost", "networks/*/of_floor/unify/time", "lower", TIME_TOLERANCE),
    Claim("unify_cost", "networks/*/of_floor/unify/memory", "lower", MEMORY_TOLERANCE),
    Claim("unify_cost", "times_as_long/*/lint", "lower", TIME_TOLERANCE),
    Claim("unify_cost", "times_as_long/*/unify", "lower", TIME_TOLERANCE),
    Claim("calibration_cache", "text_round_trip_equal", "higher"),
    Claim("calibration_cache", "scales_seen_in_onnx_runtime", "higher"),
    Claim("ort_native", "holds/*", "higher"),
    Claim("ort_native", "networks/*/cpu/times_as_fast_as_float32/native ptq/ratio", "higher", TIME_TOLERANCE),
    Claim("rtx_builds", "all_bytes_equal", "higher"),
    Claim("rtx_builds", "networks/*/*/engines/*/signals/double_writes", "lower"),
    Claim("fp16_pass", "verdict/float: trtq/valid", "higher"),
    Claim("ptq_peers", "networks/*/of_modelopt/s", "lower", TIME_TOLERANCE),
    Claim("ptq_peers", "networks/*/of_modelopt/peak_mib", "lower", MEMORY_TOLERANCE),
    Claim("ptq_peers", "networks/*/of_modelopt/traffic_bytes", "lower"),
    Claim("ptq_peers", "networks/*/quantized/trtq mse/double_writes", "lower"),
    Claim("ptq_peers", "networks/*/quantized/trtq mse/convolutions_quantized", "higher"),
    Claim("ptq_growth", "trtq_of/*/*/s", "lower", TIME_TOLERANCE),
    Claim("ptq_growth", "trtq_of/*/*/peak_mib", "lower", MEMORY_TOLERANCE),
    Claim("ptq_growth", "many_of_few/trtq mse/*", "lower", TIME_TOLERANCE),
    Claim("rtx_bare", "networks/*/of_bare/*", "lower", TIME_TOLERANCE),
    Claim("hostile_files", "crashes_of_trtq", "lower"),
    Claim("hostile_files", "tracebacks", "lower"),
    Claim("hostile_files", "wrong_engines", "lower"),
    Claim("readers", "agree", "higher"),
    Claim("predictor", "quantized/*/tensors/match", "higher"),
    Claim("predictor", "quantized/*/fused_layers/same", "higher"),
    Claim("predictor", "yolov7_tiny/unified", "lower"),
    Claim("fuzzed_readers", "files", "higher"),
    Claim("engine_diffs", "profiled/*/adds_up", "higher"),
    Claim("engine_diffs", "yolov7@640/with_the_command", "higher"),
    Claim("bench_statistics", "holds/*", "higher"),
    Claim("bench_logs", "holds/*", "higher"),
    Claim("bench_ort", "holds/*", "higher"),
    Claim("yolov7-tiny-digits", "modes/*/accuracy/*", "higher", ACCURACY_TOLERANCE),
    Claim("yolov7-tiny-digits", "modes/*/signals/double_writes", "lower"),
    Claim("mobilenet_v2-digits", "modes/*/accuracy/*", "higher", ACCURACY_TOLERANCE),
    Claim("mobilenet_v2-digits", "modes/*/signals/double_writes", "lower"),
    Claim("report_cost", "graph/within_limit", "higher"),
    Claim("report_cost", "report/within_limits", "higher"),
    Claim("report_cost", "graph/views/*/of_floor", "lower", TIME_TOLERANCE),
    Claim("report_cost", "graph/by_layers/*/of_floor", "lower", TIME_TOLERANCE),
    Claim("report_cost", "report/pages/*/of_floor", "lower", TIME_TOLERANCE),
    Claim("startup", "of_python/*", "lower", TIME_TOLERANCE),
)

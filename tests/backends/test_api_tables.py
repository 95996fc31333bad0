"""Every name that planning and building touch exists in the wheels of the versions that claim it.

TensorRT 8.5 has no table: it was read off its headers and published bindings, and stays unchecked here.
"""

from __future__ import annotations

import ast
import dataclasses
import io
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.backends import planner_cases, strict_builder
from tests.backends.strict_builder import TABLES, Module, table
from trtq.backends import BuildOptions, building, calibrator, cuda, dialects, planner, vendor_build
from trtq.backends.calls import Bits, Named
from trtq.backends.dialects import DIALECTS, Dialect
from trtq.errors import ConfigError

pytestmark = pytest.mark.skipif(
    not strict_builder.API.is_dir(), reason="the API tables of TensorRT's wheels are absent"
)

BACKENDS = Path(building.__file__).parent
# Which class of the API each name stands for in plans, and in the sources of the worker.
CLASSES = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "config": "IBuilderConfig",
    "profile": "IOptimizationProfile",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "inspector": "EngineInspector",
    "context": "IExecutionContext",
    "cache": "ITimingCache",
    "error": "ParserError",
}
# Asked for with hasattr before they are used.
GUARDED = {"IProgressMonitor", "ParserError.node_name", "ParserError.node_operator"}
PLANNED = [(dialect, case) for dialect in DIALECTS.values() for case in planner_cases.CASES if dialect.name in TABLES]


def touched_by(plan: planner.BuildPlan) -> set[str]:
    """Return every name of the API in a plan."""
    names = set()
    for call in plan.calls:
        kind = CLASSES.get(call.receiver.rstrip("0123456789"))
        names.add(call.attribute if kind is None else f"{kind}.{call.attribute}")
        for argument in call.arguments:
            names |= {argument.path} if isinstance(argument, Named) else set()
            names |= set(argument.paths) if isinstance(argument, Bits) else set()
    return names


def touched_in_source(source: str) -> set[str]:
    """Return every attribute that a worker's source takes of the vendor's module or of an object of its API."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Attribute):
            continue
        parts = ast.unparse(node).split(".")
        if parts[0] == "vendor":
            names.add(".".join(parts[1:3]))
        elif isinstance(node.value, ast.Name) and node.value.id in CLASSES:
            names.add(f"{CLASSES[node.value.id]}.{node.attr}")
    return names


def missing(names: set[str], known: dict[str, Any]) -> set[str]:
    def there(name: str) -> bool:
        owner, _, member = name.partition(".")
        return owner in known and (not member or member in known[owner]["members"] or member == "__init__")

    return {name for name in names if not there(name)}


@pytest.mark.parametrize("name", TABLES)
def test_recorded_features_are_those_of_the_wheel(name: str) -> None:
    known = table(name)
    assert DIALECTS[name].features == {one for one in dialects.FEATURES if not missing({one}, known)}


@pytest.mark.parametrize(("dialect", "case"), PLANNED, ids=lambda one: getattr(one, "name", ""))
def test_names_in_plans_exist(dialect: Dialect, case: planner_cases.Case) -> None:
    try:
        plan = planner.plan(case.spec(dialect), dialect, quantized=case.quantized)
    except ConfigError:
        return
    assert not missing(touched_by(plan), table(dialect.name))


@pytest.mark.parametrize("name", TABLES)
def test_names_in_the_workers_source_exist(name: str) -> None:
    names = touched_in_source((BACKENDS / "vendor_build.py").read_text())
    assert {"Runtime", "IProgressMonitor.__init__", "EngineInspector.execution_context"} <= names
    assert {one for one in missing(names, table(name)) if one.split(".__")[0] not in GUARDED} == set()


def test_calibrators_are_in_every_version_with_implicit_ptq() -> None:
    for name in TABLES:
        there = {one in table(name) for one in calibrator.CLASSES.values()}
        assert there == {DIALECTS[name].has("IBuilderConfig.int8_calibrator")}


def test_the_check_can_fail() -> None:
    case = next(one for one in planner_cases.CASES if one.cache is not None)
    plan = planner.plan(case.spec(DIALECTS["trt10.3"]), DIALECTS["trt10.3"], quantized=False)
    assert missing(touched_by(plan), table("trt11.4")) == {
        "BuilderFlag.FP16",
        "BuilderFlag.INT8",
        "IBuilderConfig.int8_calibrator",
        "NetworkDefinitionCreationFlag.EXPLICIT_BATCH",
    }
    assert missing(touched_by(plan), table("trt8.6")) == {"IBuilderConfig.progress_monitor"}
    assert missing(touched_in_source("engine.num_bindings"), table("trt10.3")) == {"ICudaEngine.num_bindings"}


def work(module: Module, plan: planner.BuildPlan, folder: Path) -> dict[str, Any]:
    request = building.request(plan, folder / "plan", folder, layers=not plan.dialect.ahead_of_time)
    return vendor_build.work(module, request, io.StringIO(), partial(calibrator.make, open_cuda=cuda.open_cuda))


@pytest.mark.parametrize(("dialect", "case"), PLANNED, ids=lambda one: getattr(one, "name", ""))
def test_worker_touches_nothing_else(dialect: Dialect, case: planner_cases.Case, tmp_path: Path) -> None:
    if case.images is not None:
        case = dataclasses.replace(case, images=None, cache=planner_cases.CACHE)
    try:
        plan = planner.plan(case.spec(dialect), dialect, quantized=case.quantized)
    except ConfigError:
        return
    module = Module(dialect.name)
    facts = work(module, plan, tmp_path)
    assert facts["built"] and (tmp_path / "plan").read_bytes() == b"plan"
    # What a plan reads as is what the worker does, in that order.
    done = [line.replace("()", "") for line in module.log]
    wanted = [call.attribute for call in plan.calls if call.receiver != "trt"]
    assert [line.split(".")[1].split("(")[0].split(" ")[0] for line in done][: len(wanted)] == wanted
    assert (tmp_path / building.LAYERS_NAME).is_file() != dialect.ahead_of_time
    assert (tmp_path / building.TIMING_CACHE_NAME).is_file() == (case.options.timing_cache is not None)


def test_worker_on_another_version_is_stopped(tmp_path: Path) -> None:
    case = planner_cases.CASES[0]
    plan = planner.plan(case.spec(DIALECTS["trt10.3"]), DIALECTS["trt10.3"], quantized=False)
    with pytest.raises(AttributeError, match=r"IBuilderConfig of trt8\.6 has no progress_monitor"):
        work(Module("trt8.6"), plan, tmp_path)


@pytest.mark.parametrize(("name", "node"), [("trt8.6", ""), ("trt10.3", "conv")])
def test_parsers_reasons(name: str, node: str, tmp_path: Path) -> None:
    dialect = DIALECTS[name]
    plan = planner.plan(planner_cases.CASES[0].spec(dialect), dialect, quantized=False)
    facts = work(Module(name, parses=False), plan, tmp_path)
    assert facts == {"parse_errors": [{"index": 3, "node": node, "operator": node.title(), "reason": "no kernel"}]}


def test_dla_core_that_is_not_there(tmp_path: Path) -> None:
    dialect = DIALECTS["trt10.3"]
    spec = dataclasses.replace(planner_cases.CASES[1].spec(dialect), options=BuildOptions(dla_core=1))
    plan = planner.plan(spec, dialect, quantized=False)
    assert work(Module("trt10.3", cores=1), plan, tmp_path) == {"dla_cores": 1}
    assert work(Module("trt10.3", cores=2), plan, tmp_path)["built"]


def test_no_plan_no_file(tmp_path: Path) -> None:
    dialect = DIALECTS["trt10.3"]
    plan = planner.plan(planner_cases.CASES[0].spec(dialect), dialect, quantized=False)
    assert not work(Module("trt10.3", builds=False), plan, tmp_path)["built"]
    assert not list(tmp_path.iterdir())


def test_an_installed_module_is_asked_itself() -> None:
    for name in TABLES:
        found = dialects.detect(Module(name))
        assert found.features == DIALECTS[name].features
        assert found.weights == DIALECTS[name].weights
        # 10.3 and 10.16 have the same names here: the newer one's form is taken, and the parser has the last word.
        assert found.opset == DIALECTS["trt10.16" if name == "trt10.3" else name].opset

"""Broken and hostile ONNX files, each made in code: what it is, what `trtq build` has to answer, and why."""

from __future__ import annotations

import os
import random

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from benchmarks.hostile_case import ANY, BUILT, EXTERNAL, NO_NETWORK, OPERATORS, REFUSED, STRUCTURE, Case
from benchmarks.hostile_networks import (
    SHAPE,
    beside,
    constant,
    deep,
    edited,
    external,
    model,
    nested,
    nested_bytes,
    network,
    node,
    nodes,
    plain,
    quantized,
    raw,
    recursive,
    special,
    weights,
)
from benchmarks.hostile_values import VALUES

CASES: tuple[Case, ...] = (
    Case("empty", NO_NETWORK, raw(b""), REFUSED, "empty file"),
    Case("text", NO_NETWORK, raw(b"this is text\n"), REFUSED, "not an ONNX file"),
    Case("html", NO_NETWORK, raw(b"<!DOCTYPE html><html><body>404</body></html>"), REFUSED, "not an ONNX file"),
    Case("zip", NO_NETWORK, raw(b"PK\x03\x04" + bytes(200)), REFUSED, "not an ONNX file"),
    Case("random-bytes", NO_NETWORK, raw(lambda: random.Random(1).randbytes(4096)), REFUSED, "not an ONNX file"),
    Case("zeros", NO_NETWORK, raw(bytes(4096)), REFUSED, "not an ONNX file"),
    Case("truncated", NO_NETWORK, raw(lambda: quantized().SerializeToString()[:-40]), REFUSED, "truncated"),
    Case("cut-in-half", NO_NETWORK, raw(lambda: quantized().SerializeToString()[:300]), REFUSED, "truncated"),
    Case("promised-gigabytes", NO_NETWORK, raw(b"\x08\x08\x3a\xff\xff\xff\xff\x0fabc"), REFUSED, "not an ONNX file"),
    Case("folder", NO_NETWORK, special(lambda path: path.mkdir()), REFUSED, "is a (directory|folder)"),
    Case("missing", NO_NETWORK, special(lambda path: None), REFUSED, "no such file"),
    Case("symlink-loop", NO_NETWORK, special(lambda path: path.symlink_to(path.name)), REFUSED, "symbolic links"),
    Case("dangling-symlink", NO_NETWORK, special(lambda path: path.symlink_to("none")), REFUSED, "no such file"),
    Case("pipe", NO_NETWORK, special(os.mkfifo), REFUSED, "not a file|empty"),
    Case("endless-device", NO_NETWORK, special(lambda path: path.symlink_to("/dev/zero")), REFUSED, "not a file|empty"),
    Case("only-a-version", NO_NETWORK, raw(b"\x08\x08"), REFUSED, "holds no network"),
    Case("no-nodes", NO_NETWORK, nodes(), REFUSED, "holds no network"),
    Case("no-outputs", NO_NETWORK, model(edited(plain, lambda m: m.graph.ClearField("output"))), REFUSED, "no network"),
    Case(
        "cycle",
        STRUCTURE,
        nodes(node("Add", ["x", "b"], "a"), node("Relu", ["a"], "b"), node("Relu", ["b"])),
        REFUSED,
        "cycle|sorted",
    ),
    Case("missing-initializer", STRUCTURE, nodes(node("Conv", ["x", "gone"])), REFUSED, "'?gone"),
    Case("undefined-output", STRUCTURE, nodes(node("Relu"), output="nowhere"), REFUSED, "nowhere"),
    Case("duplicate-tensor", STRUCTURE, nodes(node("Relu", name="a"), node("Sigmoid", name="b")), REFUSED, "SSA|twice"),
    Case(
        "duplicate-initializer",
        STRUCTURE,
        model(edited(plain, lambda m: m.graph.initializer.append(m.graph.initializer[0]))),
        REFUSED,
        "initializer",
    ),
    Case("input-written", STRUCTURE, nodes(node("Relu", write="x"), output="x"), REFUSED, "SSA|twice|input"),
    Case("node-without-output", STRUCTURE, nodes(helper.make_node("Relu", ["x"], [])), REFUSED, "output|y"),
    Case("missing-attribute", STRUCTURE, nodes(node("Concat", ["x", "x"])), REFUSED, "axis"),
    Case("attribute-of-wrong-type", STRUCTURE, nodes(node("Concat", ["x", "x"], axis="one")), REFUSED, "axis"),
    Case(
        "shapes-do-not-add",
        STRUCTURE,
        nodes(node("Add", ["x", "w"]), constants=[constant("w", np.ones((3, 5)))]),
        REFUSED,
        "odd|Add|[Ii]ncompatible|dimension",
    ),
    Case(
        "channels-do-not-fit",
        STRUCTURE,
        nodes(node("Conv", ["x", "w"]), constants=[constant("w", np.ones((4, 5, 3, 3)))]),
        REFUSED,
        "odd|Conv|channel",
    ),
    Case(
        "reshape-to-other-size",
        STRUCTURE,
        nodes(node("Reshape", ["x", "w"]), constants=[constant("w", [7, 11], np.int64)]),
        REFUSED,
        "odd|Reshape|reshape",
    ),
    Case(
        "concat-of-other-sizes",
        STRUCTURE,
        nodes(node("Concat", ["x", "w"], axis=1), constants=[constant("w", np.ones((1, 8, 3, 3)))]),
        REFUSED,
        "odd|Concat|concat",
    ),
    Case(
        "float-plus-int",
        STRUCTURE,
        nodes(node("Add", ["x", "w"]), constants=[constant("w", np.ones(SHAPE), np.int64)]),
        REFUSED,
        "odd|Add|type",
    ),
    Case("opset-99", STRUCTURE, nodes(node("Relu"), opset=99), REFUSED, "opset|version"),
    Case("no-opset", STRUCTURE, model(edited(plain, lambda m: m.ClearField("opset_import"))), REFUSED, "opset"),
    Case("ir-version-999", STRUCTURE, model(edited(plain, lambda m: setattr(m, "ir_version", 999))), REFUSED, "ir_?v"),
    Case("function-calls-itself", STRUCTURE, model(recursive), REFUSED, "Again|recurs"),
    Case("nested-branches", STRUCTURE, model(lambda: nested(8)), ANY, "net.onnx"),
    Case("nested-too-deep", STRUCTURE, raw(lambda: nested_bytes(300)), REFUSED, "not an ONNX file"),
    Case("deep-chain", STRUCTURE, model(deep), BUILT),
    Case("weights-missing", EXTERNAL, model(lambda: external("weights.bin")), REFUSED, "weights.bin"),
    Case(
        "weights-short",
        EXTERNAL,
        beside(lambda: external("weights.bin"), b"abc"),
        REFUSED,
        "'weights.bin' ends before tensor 'w'",
    ),
    Case(
        "weights-outside", EXTERNAL, model(lambda: external("../weights.bin")), REFUSED, "outside the network's folder"
    ),
    Case("weights-absolute", EXTERNAL, model(lambda: external("/etc/passwd")), REFUSED, "outside the network's folder"),
    Case(
        "weights-link-outside",
        EXTERNAL,
        beside(lambda: external("link.bin"), b"", lambda folder: (folder / "link.bin").symlink_to("/etc/passwd")),
        REFUSED,
        "outside the network's folder",
    ),
    Case("weights-are-a-folder", EXTERNAL, model(lambda: external(".")), REFUSED, "weights file '.'"),
    Case("weights-unnamed", EXTERNAL, model(lambda: external("")), REFUSED, "weights file ''"),
    Case(
        "weights-before-the-file",
        EXTERNAL,
        beside(lambda: external("weights.bin", offset="-8"), bytes(9999)),
        REFUSED,
        "lies at -8 in 'weights.bin'",
    ),
    Case(
        "weights-at-no-number",
        EXTERNAL,
        beside(lambda: external("weights.bin", offset="soon"), bytes(9999)),
        REFUSED,
        "lies at soon in 'weights.bin'",
    ),
    Case(
        "weights-of-exabytes",
        EXTERNAL,
        beside(lambda: external("weights.bin", length=str(2**62)), bytes(9999)),
        REFUSED,
        "'weights.bin' ends before tensor 'w'",
    ),
    Case(
        "weights-beside",
        EXTERNAL,
        beside(lambda: external("weights.bin"), plain().graph.initializer[0].raw_data),
        BUILT,
    ),
    Case("unknown-operator", OPERATORS, nodes(node("Frobnicate")), REFUSED, "Frobnicate"),
    Case(
        "unknown-domain",
        OPERATORS,
        model(
            edited(
                lambda: network([node("Frobnicate", domain="com.acme")]),
                lambda m: m.opset_import.append(helper.make_opsetid("com.acme", 1)),
            )
        ),
        REFUSED,
        "Frobnicate",
    ),
    Case("undeclared-domain", OPERATORS, nodes(node("Frobnicate", domain="com.acme")), REFUSED, "com.acme|Frobnicate"),
    Case("unsupported-operator", OPERATORS, nodes(node("NonZero"), dtype=TensorProto.FLOAT), REFUSED, "NonZero"),
    Case("double-input", OPERATORS, nodes(node("Relu"), dtype=TensorProto.DOUBLE), REFUSED, "float64"),
    Case("text-input", OPERATORS, nodes(node("Identity"), dtype=TensorProto.STRING), REFUSED, "net.onnx"),
    Case(
        "qlinear-convolution",
        OPERATORS,
        model(
            lambda: network(
                [
                    node("QuantizeLinear", ["x", "s", "z"], "q", name="a"),
                    node("QLinearConv", ["q", "s", "z", "w", "s", "z", "s", "z"], "r"),
                    node("DequantizeLinear", ["r", "s", "z"], "y", name="b"),
                ],
                [constant("s", 0.1), constant("z", 0, np.int8), numpy_helper.from_array(weights(), "w")],
            )
        ),
        REFUSED,
        "QLinearConv",
    ),
    Case(
        "dynamic-quantize",
        OPERATORS,
        nodes(
            helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
            node("DequantizeLinear", ["q", "s", "z"], "y"),
        ),
        REFUSED,
        "DynamicQuantizeLinear|TQ30",
    ),
    Case(
        "integer-convolution",
        OPERATORS,
        model(
            lambda: network(
                [
                    node("QuantizeLinear", ["x", "s", "z"], "q", name="a"),
                    node("ConvInteger", ["q", "w"], "r"),
                    node("Cast", ["r"], to=TensorProto.FLOAT, name="b"),
                ],
                [constant("s", 0.1), constant("z", 0, np.int8), numpy_helper.from_array(weights(), "w")],
            )
        ),
        REFUSED,
        "ConvInteger",
    ),
    *VALUES,
)

"""Where values come from: the DequantizeLinear from which only operators that pass values on lead to a tensor."""

from __future__ import annotations

import onnx_ir as ir

from trtq.qdq import reading
from trtq.qdq.groups import joint_of
from trtq.qdq.remembering import remembered
from trtq.rules import breaks, readers


@remembered
def origins(model: ir.Model) -> dict[int, ir.Node]:
    """Return the DequantizeLinear that each tensor comes from, by the tensor's id; linear in the graph's size.

    Behind a Concat it is that of the first branch that has one. An activation is an end, since a DequantizeLinear does
    not move across it, but for one that TQ203 sees to.
    """
    mended = {id(one.result) for one in breaks.find(model)}
    found: dict[int, ir.Node] = {}
    for node in reading.nodes(model):
        if reading.is_dequantize(node):
            found[id(node.outputs[0])] = node
            continue
        joint = joint_of(node)
        if joint is None or (node.op_type in readers.ACTIVATIONS and id(node.outputs[0]) not in mended):
            continue
        read = node.inputs if joint.all_inputs else node.inputs[:1]
        origin = next((found[id(value)] for value in read if id(value) in found), None)
        if origin is not None:
            found.update((id(value), origin) for value in node.outputs)
    return found


def feeds_int8(value: ir.Value, known: dict[int, ir.Node]) -> bool:
    """Tell whether an operator with quantized weights reads `value`, through what passes it on, without a quantizer.

    known: the graph's `origins`.
    """
    reached, seen = [value], {id(value)}
    while reached:
        tensor = reached.pop()
        for node in tensor.consumers():
            if node.op_type in reading.WEIGHTED and node.inputs[0] is tensor:
                if id(node.inputs[1]) in known:
                    return True
            elif joint_of(node) is not None and node.inputs[0] is tensor and node.op_type != "Concat":
                new = [one for one in node.outputs if id(one) not in seen]
                reached.extend(new)
                seen.update(map(id, new))
    return False

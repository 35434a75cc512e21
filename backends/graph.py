"""A small builder of ONNX graphs. Constants are stored by name, so that equal ones are stored once."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

Array = np.ndarray[Any, Any]


class GraphBuilder:
    """Nodes and initializers in the order in which they are added, so that equal calls give equal bytes."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.initializers: dict[str, TensorProto] = {}

    def op(self, operator: str, name: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output; returns the output's name. An empty input name leaves that input out."""
        output = f"{name}:out"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], name=name, **attributes))
        return output

    def split(self, name: str, values: str, sizes: list[int], axis: int) -> list[str]:
        """Cut a tensor into parts of these sizes along an axis; returns their names."""
        outputs = [f"{name}:{number}" for number in range(len(sizes))]
        lengths = self.constant(f"{name}.sizes", np.array(sizes, np.int64))
        self.nodes.append(helper.make_node("Split", [values, lengths], outputs, name=name, axis=axis))
        return outputs

    def constant(self, name: str, values: Array) -> str:
        """Add an initializer; returns its name. A second call with the same name must have the same values."""
        if name not in self.initializers:
            self.initializers[name] = numpy_helper.from_array(np.asarray(values, order="C"), name)
        return name

    def model(self, inputs: list[Any], outputs: list[Any], *, opset: int, ir_version: int, producer: str) -> ModelProto:
        graph = helper.make_graph(self.nodes, "encoder", inputs, outputs, list(self.initializers.values()))
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version, producer_name=producer
        )

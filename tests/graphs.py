"""ONNX graphs that tests write, with descriptions beside them."""

import json

import numpy as np
import onnx
from onnx import TensorProto, helper


def graph(file, nodes, inputs, outputs, constants=(), metadata=None):
    """Write a graph; inputs and outputs: name -> (type, shape)."""
    made = [helper.make_tensor_value_info(n, t, s) for n, (t, s) in inputs.items()]
    out = [helper.make_tensor_value_info(n, t, s) for n, (t, s) in outputs.items()]
    weights = [onnx.numpy_helper.from_array(np.asarray(v), n) for n, v in constants]
    body = helper.make_graph(nodes, "g", made, out, weights)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    helper.set_model_props(model, metadata or {})
    onnx.save(model, file)
    return file


def describe(file, **about):
    file.with_suffix(".json").write_text(json.dumps(about))
    return f"onnx:{file}"


def constant(file, outputs, x=(TensorProto.FLOAT, [1, 3, 40, 40]), metadata=None, beside=None):
    """A graph that always answers the same arrays, by name, whatever it is given. beside: further inputs, unused."""
    nodes = [helper.make_node("Shape", ["x"], ["s"]), helper.make_node("Cast", ["s"], ["f"], to=TensorProto.FLOAT)]
    nodes += [helper.make_node("ReduceSum", ["f"], ["m"], keepdims=0), helper.make_node("Mul", ["m", "0"], ["z"])]
    nodes += [helper.make_node("Add", [f"{k} constant", "z"], [k]) for k in outputs]
    arrays = {k: np.asarray(v, np.float32) for k, v in outputs.items()}
    constants = [("0", np.float32(0)), *((f"{k} constant", v) for k, v in arrays.items())]
    shapes = {k: (TensorProto.FLOAT, v.shape) for k, v in arrays.items()}
    return graph(file, nodes, {"x": x} | (beside or {}), shapes, constants, metadata)

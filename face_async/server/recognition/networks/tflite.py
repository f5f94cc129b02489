"""TensorFlow Lite networks as ONNX: of all operators, those that the networks of this package have.

Needs the packages onnx and ai-edge-litert, and is used by :mod:`.rebuild` alone.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, cast

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    Values = npt.NDArray[Any]

# These packages have no annotations that say more.
onnx: Any = importlib.import_module("onnx")
helper: Any = importlib.import_module("onnx.helper")
schema: Any = importlib.import_module("ai_edge_litert.schema_py_generated")
interpreter: Any = importlib.import_module("ai_edge_litert.interpreter")

_NAMES: dict[int, str] = {
    number: name
    for name, number in cast("dict[str, Any]", vars(schema.BuiltinOperator)).items()
    if isinstance(number, int)
}
_RELU, _RELU6 = 1, 3
_OPSET, _IR_VERSION = 17, 8


def loaded(path: Path) -> Any:
    """Return an interpreter that keeps every tensor, and computes as it was written down."""
    without_shortcuts = interpreter.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    network = interpreter.Interpreter(
        str(path),
        experimental_op_resolver_type=without_shortcuts,
        experimental_preserve_all_tensors=True,
        num_threads=1,
    )
    network.allocate_tensors()
    return network


def converted(path: Path) -> Any:
    """Return a network as ONNX: its input is ``input``, as before; its outputs are ``out0``, ``out1``, and so on."""
    return _Conversion(path).model()


class _Conversion:
    def __init__(self, path: Path) -> None:
        self._model = schema.Model.GetRootAs(path.read_bytes(), 0)
        self._graph = self._model.Subgraphs(0)
        self._values = loaded(path)
        details = self._values.get_input_details()[0]
        self._values.set_tensor(details["index"], np.zeros(details["shape"], np.float32))
        self._values.invoke()  # which also unpacks weights
        self._shape = [int(side) for side in details["shape"]]
        self._nodes: list[Any] = []
        self._weights: list[Any] = []
        self._unpacked: set[int] = set()

    def model(self) -> Any:
        given = self._graph.Inputs(0)
        self._add("Transpose", ["input"], _name(given), perm=[0, 3, 1, 2])  # ONNX has the channels before rows
        for index in range(self._graph.OperatorsLength()):
            self._convert(self._graph.Operators(index))
        outputs: list[Any] = []
        for index in range(self._graph.OutputsLength()):
            self._add("Identity", [_name(self._graph.Outputs(index))], f"out{index}")
            outputs.append(helper.make_tensor_value_info(f"out{index}", onnx.TensorProto.FLOAT, None))
        inputs = [helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, self._shape)]
        graph = helper.make_graph(self._nodes, "network", inputs, outputs, self._weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)])
        model.ir_version = _IR_VERSION
        return model

    def _convert(self, operator: Any) -> None:
        code = self._model.OperatorCodes(operator.OpcodeIndex())
        kind = _NAMES[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
        inputs = [operator.Inputs(place) for place in range(operator.InputsLength())]
        output = operator.Outputs(0)
        if kind in {"DEQUANTIZE", "DENSIFY"} and self._is_constant(inputs[0]):
            self._unpacked.add(output)
            return
        convert = getattr(self, f"_to_{kind.lower()}", None)
        if convert is None:
            raise ValueError(f"no ONNX for {kind}")
        convert(operator.BuiltinOptions(), inputs, output)

    def _to_conv_2d(self, table: Any, inputs: list[int], output: int) -> None:
        options = _options(schema.Conv2DOptions, table)
        self._convolve(options, inputs, output, self._value(inputs[1]).transpose(0, 3, 1, 2), group=1)

    def _to_depthwise_conv_2d(self, table: Any, inputs: list[int], output: int) -> None:
        options = _options(schema.DepthwiseConv2DOptions, table)
        kernel = self._value(inputs[1]).transpose(3, 0, 1, 2)
        self._convolve(options, inputs, output, kernel, group=len(kernel))

    def _convolve(self, options: Any, inputs: list[int], output: int, kernel: Values, *, group: int) -> None:
        activation = options.FusedActivationFunction()
        raw = f"{_name(output)}_raw" if activation else _name(output)
        given = [_name(inputs[0]), self._weight(kernel), self._weight(self._value(inputs[2]))]
        self._add(
            "Conv",
            given,
            raw,
            auto_pad="VALID" if options.Padding() else "SAME_UPPER",
            dilations=[options.DilationHFactor(), options.DilationWFactor()],
            group=group,
            kernel_shape=kernel.shape[2:],
            strides=[options.StrideH(), options.StrideW()],
        )
        self._activate(activation, raw, output)

    def _activate(self, activation: int, raw: str, output: int) -> None:
        if activation == _RELU:
            self._add("Relu", [raw], _name(output))
        elif activation == _RELU6:
            self._add("Clip", [raw, self._weight(np.float32(0)), self._weight(np.float32(6))], _name(output))
        elif activation:
            raise ValueError(f"no ONNX for activation {activation}")

    def _to_add(self, table: Any, inputs: list[int], output: int) -> None:
        activation = _options(schema.AddOptions, table).FusedActivationFunction()
        raw = f"{_name(output)}_raw" if activation else _name(output)
        self._add("Add", [_name(given) for given in inputs], raw)
        self._activate(activation, raw, output)

    def _to_relu(self, _table: Any, inputs: list[int], output: int) -> None:
        self._add("Relu", [_name(inputs[0])], _name(output))

    def _to_prelu(self, _table: Any, inputs: list[int], output: int) -> None:
        slopes = self._value(inputs[1]).reshape(-1, 1, 1)
        self._add("PRelu", [_name(inputs[0]), self._weight(slopes)], _name(output))

    def _to_pad(self, _table: Any, inputs: list[int], output: int) -> None:
        edges = self._value(inputs[1]).astype(np.int64)[[0, 3, 1, 2]]
        self._add("Pad", [_name(inputs[0]), self._weight(edges.T.reshape(-1))], _name(output))

    def _to_max_pool_2d(self, table: Any, inputs: list[int], output: int) -> None:
        options = _options(schema.Pool2DOptions, table)
        self._add(
            "MaxPool",
            [_name(inputs[0])],
            _name(output),
            auto_pad="VALID" if options.Padding() else "SAME_UPPER",
            kernel_shape=[options.FilterHeight(), options.FilterWidth()],
            strides=[options.StrideH(), options.StrideW()],
        )

    def _to_reshape(self, _table: Any, inputs: list[int], output: int) -> None:
        """Bring the channels back to their place first, as the shape is meant so."""
        shape = np.array(self._values.get_tensor(output).shape, np.int64)
        self._add("Transpose", [_name(inputs[0])], f"{_name(output)}_rows", perm=[0, 2, 3, 1])
        self._add("Reshape", [f"{_name(output)}_rows", self._weight(shape)], _name(output))

    def _to_concatenation(self, table: Any, inputs: list[int], output: int) -> None:
        axis = _options(schema.ConcatenationOptions, table).Axis()
        self._add("Concat", [_name(given) for given in inputs], _name(output), axis=axis)

    def _to_depth_to_space(self, table: Any, inputs: list[int], output: int) -> None:
        size = _options(schema.DepthToSpaceOptions, table).BlockSize()
        self._add("DepthToSpace", [_name(inputs[0])], _name(output), blocksize=size, mode="DCR")

    def _to_resize_bilinear(self, table: Any, inputs: list[int], output: int) -> None:
        options = _options(schema.ResizeBilinearOptions, table)
        mode = "align_corners" if options.AlignCorners() else "asymmetric"
        mode = "half_pixel" if options.HalfPixelCenters() else mode
        shape = np.array(self._values.get_tensor(output).shape, np.int64)[[0, 3, 1, 2]]
        given = [_name(inputs[0]), "", "", self._weight(shape)]
        self._add("Resize", given, _name(output), mode="linear", coordinate_transformation_mode=mode)

    def _is_constant(self, tensor: int) -> bool:
        buffer = self._model.Buffers(self._graph.Tensors(tensor).Buffer())
        return tensor in self._unpacked or buffer.DataLength() > 0

    def _value(self, tensor: int) -> Values:
        value: Values = self._values.get_tensor(tensor)
        return value.astype(np.float32) if value.dtype == np.float16 else value

    def _weight(self, value: Values | np.float32) -> str:
        name = f"weight{len(self._weights)}"
        self._weights.append(onnx.numpy_helper.from_array(np.ascontiguousarray(value).reshape(np.shape(value)), name))
        return name

    def _add(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> None:
        self._nodes.append(helper.make_node(kind, inputs, [output], **attributes))


def _name(tensor: int) -> str:
    return f"tensor{tensor}"


def _options(kind: Any, table: Any) -> Any:
    options = kind()
    options.Init(table.Bytes, table.Pos)
    return options

"""Models of other frameworks, written byte by byte: none of the frameworks is needed, and hostile variants are easy.

Each function returns the smallest file of its format: one input `x` of float32, one Relu, one output `y`.
"""

from typing import Final

_FLOAT_ONNX: Final = 1
_FLOAT_TF: Final = 1
_FLOAT_PADDLE: Final = 5
_LOD_TENSOR: Final = 7
_FEED, _FETCH = 9, 10


def varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def field(number: int, value: int | str | bytes) -> bytes:
    """One field: integers as varints, the rest length-delimited."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    raw = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(raw)) + raw


# --- ONNX -----------------------------------------------------------------------------------------


def onnx_model(*, weights_at: str | None = None, weights_bytes: int = 16) -> bytes:
    """y = Relu(x), or y = x + w with `w` in the external file `weights_at`."""
    if weights_at is None:
        nodes = field(1, field(1, "x") + field(2, "y") + field(3, "relu") + field(4, "Relu"))
    else:
        nodes = field(1, field(1, "x") + field(1, "w") + field(2, "y") + field(3, "add") + field(4, "Add"))
        nodes += field(5, _external_tensor("w", weights_at, weights_bytes))
    graph = nodes + field(2, "graph") + field(11, _onnx_value("x")) + field(12, _onnx_value("y"))
    return field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 13))


def _onnx_value(name: str) -> bytes:
    shape = field(1, field(2, "batch")) + field(1, field(1, 4))
    return field(1, name) + field(2, field(1, field(1, _FLOAT_ONNX) + field(2, shape)))


def _external_tensor(name: str, location: str, size_bytes: int) -> bytes:
    entries = b"".join(
        field(13, field(1, key) + field(2, value))
        for key, value in (("location", location), ("offset", "0"), ("length", str(size_bytes)))
    )
    return field(1, size_bytes // 4) + field(2, _FLOAT_ONNX) + field(8, name) + entries + field(14, 1)


# --- TensorFlow -----------------------------------------------------------------------------------


def tf_graph() -> bytes:
    """A frozen GraphDef."""
    shape = field(2, field(1, -1)) + field(2, field(1, 4))
    placeholder = field(1, "x") + field(2, "Placeholder") + _tf_type("dtype") + _attr("shape", field(7, shape))
    relu = field(1, "y") + field(2, "Relu") + field(3, "x") + _tf_type("T")
    return field(1, placeholder) + field(1, relu) + field(4, field(1, 1087))


def tf_saved_model() -> bytes:
    """saved_model.pb with a default signature."""
    signature = field(1, _tensor_info("x")) + field(2, _tensor_info("y")) + field(3, "tensorflow/serving/predict")
    meta = field(1, field(4, "serve")) + field(2, tf_graph())
    meta += field(5, field(1, "serving_default") + field(2, signature))
    return field(1, 1) + field(2, meta)


def _tf_type(name: str) -> bytes:
    return _attr(name, field(6, _FLOAT_TF))


def _attr(name: str, value: bytes) -> bytes:
    return field(5, field(1, name) + field(2, value))


def _tensor_info(name: str) -> bytes:
    shape = field(2, field(1, -1)) + field(2, field(1, 4))
    return field(1, name) + field(2, field(1, f"{name}:0") + field(2, _FLOAT_TF) + field(3, shape))


# --- PaddlePaddle ---------------------------------------------------------------------------------


def paddle_program() -> bytes:
    """A .pdmodel; its .pdiparams is empty, as it has no weights."""
    variables = field(3, field(1, "feed") + field(2, field(1, _FEED)))
    variables += field(3, field(1, "fetch") + field(2, field(1, _FETCH)))
    variables += b"".join(field(3, field(1, name) + field(2, _lod_tensor())) for name in ("x", "y"))
    ops = field(4, _op("feed", ("X", "feed"), ("Out", "x"), _column()))
    ops += field(4, _op("relu", ("X", "x"), ("Out", "y")))
    ops += field(4, _op("fetch", ("X", "y"), ("Out", "fetch"), _column()))
    return field(1, field(1, 0) + field(2, 0) + variables + ops) + field(4, field(1, 2_000_000))


def _lod_tensor() -> bytes:
    tensor = field(1, _FLOAT_PADDLE) + field(2, -1) + field(2, 4)
    return field(1, _LOD_TENSOR) + field(3, field(1, tensor))


def _op(name: str, given: tuple[str, str], made: tuple[str, str], attributes: bytes = b"") -> bytes:
    ports = field(1, field(1, given[0]) + field(2, given[1])) + field(2, field(1, made[0]) + field(2, made[1]))
    return ports + field(3, name) + attributes


def _column() -> bytes:
    return field(4, field(1, "col") + field(2, 0) + field(3, 0))

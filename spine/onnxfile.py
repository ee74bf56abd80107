"""What an ONNX file may be, checked on its bytes before any runtime parses it.

A page of protobuf reading, so that a serving image needs no `onnx` package. Field numbers are those
of onnx/onnx.proto3: ModelProto, GraphProto, NodeProto, AttributeProto, TensorProto.
"""

from collections.abc import Iterator
from math import prod

MAX_BYTES = 512 * 1024 * 1024
DOMAINS = frozenset({b"", b"ai.onnx", b"ai.onnx.ml"})
OPSETS = range(9, 27)
DEPTH = 16
# Bits of one element by TensorProto.DataType; strings (8) have no fixed size.
BITS = {
    1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64,
    14: 64, 15: 128, 16: 16, 17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4,
}  # fmt: skip
# TensorProto fields that hold elements one by one, and the bytes each takes at least.
TYPED = {4: 4, 5: 1, 7: 1, 10: 8, 11: 1}

Field = tuple[int, int | memoryview]


class Refused(Exception):
    """This package or file is not served. `code` is stable, the message tells a person why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def check_onnx(data: bytes, max_bytes: int = MAX_BYTES) -> None:
    """Whether these bytes are one self-contained ONNX model of the standard operators.

    Raises Refused: `onnx.size`, `onnx.malformed`, `onnx.external_data`, `onnx.domain`,
    `onnx.opset`, `onnx.tensor`.
    """
    if len(data) > max_bytes:
        raise Refused("onnx.size", f"{len(data)} bytes, at most {max_bytes} are allowed")
    try:
        _check_model(memoryview(data), max_bytes)
    except (ValueError, IndexError) as error:
        raise Refused("onnx.malformed", f"no ONNX model: {error}") from None


def _check_model(model: memoryview, limit: int) -> None:
    graphs, opsets = 0, 0
    for number, value in fields(model):
        if number == 7:
            graphs += 1
            _check_graph(message(value), limit, 0)
        elif number == 8:
            opsets += 1
            _check_opset(message(value))
        elif number == 25:
            raise Refused("onnx.domain", "functions of its own: only standard operators are run")
    if graphs != 1 or opsets == 0:
        raise ValueError("it has no graph or names no operator set")


def _check_opset(opset: memoryview) -> None:
    found = dict(fields(opset))
    domain = bytes(message(found.get(1, memoryview(b""))))
    _check_domain(domain)
    if domain != b"ai.onnx.ml" and found.get(2) not in OPSETS:
        raise Refused("onnx.opset", f"opset {found.get(2)!s:.20} is not among {OPSETS}")


def _check_domain(domain: bytes) -> None:
    if domain not in DOMAINS:
        raise Refused("onnx.domain", f"operators of the domain {domain[:60]!r} are not run")


def _check_graph(graph: memoryview, limit: int, depth: int) -> None:
    if depth > DEPTH:
        raise ValueError("graphs nested too deep")
    for number, value in fields(graph):
        if number == 1:
            _check_node(message(value), limit, depth)
        elif number == 5:
            _check_tensor(message(value), limit)
        elif number == 15:
            _check_sparse(message(value), limit)


def _check_node(node: memoryview, limit: int, depth: int) -> None:
    for number, value in fields(node):
        if number == 7:
            _check_domain(bytes(message(value)))
        elif number == 5:
            _check_attribute(message(value), limit, depth)


def _check_attribute(attribute: memoryview, limit: int, depth: int) -> None:
    for number, value in fields(attribute):
        if number in (5, 10):
            _check_tensor(message(value), limit)
        elif number in (6, 11):
            _check_graph(message(value), limit, depth + 1)
        elif number in (22, 23):
            _check_sparse(message(value), limit)


def _check_sparse(tensor: memoryview, limit: int) -> None:
    for number, value in fields(tensor):
        if number in (1, 2):
            _check_tensor(message(value), limit)


def _check_tensor(tensor: memoryview, limit: int) -> None:
    """External data names a file of the machine that loads it; a shape that the data doesn't fill
    makes the runtime allocate what it says."""
    dims: list[int] = []
    kind, raw, room = 0, -1, 0
    for number, value in fields(tensor):
        if number == 13 or (number == 14 and value):
            raise Refused("onnx.external_data", "weights outside the file; export as one file")
        if number == 1:
            dims += [value] if isinstance(value, int) else varints(value)
        elif number == 2 and isinstance(value, int):
            kind = value
        elif number == 9:
            raw = len(message(value))
        elif number in TYPED:
            room += 1 if isinstance(value, int) else len(value) // TYPED[number]
    if any(d < 0 or d > limit for d in dims) or prod(dims) > limit:
        raise Refused("onnx.tensor", "a tensor is declared larger than a model may be")
    _check_filled(prod(dims), kind, raw, room)


def _check_filled(count: int, kind: int, raw: int, room: int) -> None:
    if kind == 8:
        return
    if kind not in BITS:
        raise Refused("onnx.tensor", f"a tensor of the unknown type {kind}")
    if raw >= 0 and raw != (count * BITS[kind] + 7) // 8:
        raise Refused("onnx.tensor", f"a tensor of {count} elements has {raw} bytes")
    if raw < 0 and count > 0 and room * 8 < count * min(BITS[kind], 8):
        raise Refused("onnx.tensor", f"a tensor of {count} elements has data for {room}")


def fields(data: memoryview) -> Iterator[Field]:
    """The fields of a protobuf message: (number, int for varints and fixed, bytes for the rest)."""
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        number, wire = tag >> 3, tag & 7
        if number == 0:
            raise ValueError("a field numbered 0")
        value: int | memoryview
        if wire == 0:
            value, at = varint(data, at)
        elif wire in (1, 5):
            value, at = fixed(data, at, 8 if wire == 1 else 4)
        elif wire == 2:
            length, at = varint(data, at)
            if at + length > len(data):
                raise ValueError("it ends too early")
            value, at = data[at : at + length], at + length
        else:
            raise ValueError(f"wire type {wire}")
        yield number, value


def fixed(data: memoryview, at: int, width: int) -> tuple[memoryview, int]:
    if at + width > len(data):
        raise ValueError("it ends too early")
    return data[at : at + width], at + width


def varint(data: memoryview, at: int) -> tuple[int, int]:
    """A varint and where it ends. Raises ValueError, IndexError."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number without end")


def varints(data: memoryview) -> list[int]:
    found, at = [], 0
    while at < len(data):
        value, at = varint(data, at)
        found.append(value)
    return found


def message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number where a message belongs")
    return value

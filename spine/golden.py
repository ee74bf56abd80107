"""Golden inputs and the outputs they must give: `golden.json` of a model package.

A JSON object of `inputs` and `outputs`, each array by name as dtype, shape and base64 of its
little-endian bytes.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from spine.onnxfile import Refused

Array = np.ndarray[Any, np.dtype[Any]]
Arrays = Mapping[str, Array]
DTYPES = ("float16", "float32", "uint8", "bool")
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Golden:
    """What goes in, and what must come out."""

    inputs: Arrays
    outputs: Arrays


def dump(golden: Golden) -> bytes:
    """Its JSON. Keep it small: a few rows."""
    value = {"inputs": told(golden.inputs), "outputs": told(golden.outputs)}
    return json.dumps(value, sort_keys=True).encode()


def load(body: bytes) -> Golden:
    """The arrays again. Raises Refused (`golden.malformed`)."""
    try:
        value = json.loads(body)
        return Golden(
            {name: array(raw) for name, raw in value["inputs"].items()},
            {name: array(raw) for name, raw in value["outputs"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Refused("golden.malformed", f"no golden vectors: {type(error).__name__}") from None


def compare(golden: Golden, got: Arrays, tolerance: float = TOLERANCE) -> float:
    """The greatest difference from what was expected, relative where values exceed 1.

    Raises Refused: `golden.shape` for a missing output or another shape, `golden.nan` for numbers
    that are none, `golden.parity` for a difference above `tolerance`.
    """
    worst = 0.0
    for name, expected in golden.outputs.items():
        if name not in got or got[name].shape != expected.shape:
            found = got[name].shape if name in got else "nothing"
            raise Refused("golden.shape", f"{name}: {expected.shape} expected, {found} came")
        if not np.isfinite(got[name]).all():
            raise Refused("golden.nan", f"{name} holds NaN or infinity on the golden inputs")
        wanted = expected.astype(np.float64)
        gap = np.abs(got[name].astype(np.float64) - wanted) / np.maximum(1, np.abs(wanted))
        worst = max(worst, float(gap.max(initial=0)))
    if worst > tolerance:
        raise Refused("golden.parity", f"off by {worst:.2g} on the golden inputs")
    return worst


def told(arrays: Arrays) -> dict[str, Any]:
    return {name: encoded(value) for name, value in arrays.items()}


def encoded(value: Array) -> dict[str, Any]:
    """Dtype, shape and base64. Raises ValueError for a dtype that golden vectors don't have."""
    if str(value.dtype) not in DTYPES:
        raise ValueError(f"{value.dtype} is none of {', '.join(DTYPES)}")
    little = value.astype(value.dtype.newbyteorder("<"))
    body = base64.b64encode(little.tobytes()).decode()
    return {"dtype": str(value.dtype), "shape": list(value.shape), "data": body}


def array(raw: Mapping[str, Any]) -> Array:
    shape = tuple(raw["shape"])
    if raw["dtype"] not in DTYPES or any(type(side) is not int or side < 0 for side in shape):
        raise ValueError("dtype or shape")
    dtype = np.dtype(raw["dtype"]).newbyteorder("<")
    body = base64.b64decode(raw["data"], validate=True)
    if len(body) != prod(shape) * dtype.itemsize:
        raise ValueError("length")
    return np.frombuffer(body, dtype=dtype).reshape(shape)

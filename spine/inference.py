"""A session of ONNX Runtime: the one place where a model's bytes meet the runtime."""

import onnxruntime as ort  # type: ignore[import-untyped]

from spine.onnxfile import Refused


def session_of(model: bytes, threads: int = 1, arena: bool = True) -> ort.InferenceSession:
    """A session on `threads` CPU threads; without an `arena` it keeps no memory between runs,
    which suits a small model. Raises Refused.

    8-bit weights are dequantised once: kept in QDQ form, inference takes twice as long.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.enable_cpu_mem_arena = arena
    options.log_severity_level = 3
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime has a dozen kinds, none of which is a bug of ours
        raise Refused("onnx.load", f"the runtime refuses it: {type(error).__name__}") from None

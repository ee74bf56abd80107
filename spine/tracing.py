"""Traces: a span for each step of an image, by the semantic conventions 1.44 for messaging.

The trace context travels with every event whether or not spans are sent anywhere: logs carry its
id. Where no `OUROBOROS_OTLP_URL` is set a span is only that context, and costs a few random bytes.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from opentelemetry import trace as otel
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

SYSTEM = "messaging.system"
OPERATION_NAME = "messaging.operation.name"
OPERATION_TYPE = "messaging.operation.type"
DESTINATION = "messaging.destination.name"
PARTITION = "messaging.destination.partition.id"
GROUP = "messaging.consumer.group.name"
OFFSET = "messaging.kafka.offset"
KEY = "messaging.kafka.message.key"
ERROR_TYPE = "error.type"

Kind = Literal["server", "producer", "consumer"]
KINDS: Mapping[Kind, otel.SpanKind] = {
    "server": otel.SpanKind.SERVER,
    "producer": otel.SpanKind.PRODUCER,
    "consumer": otel.SpanKind.CONSUMER,
}
# Ids need to differ, not to be secret; a system call for each would cost more than the rest.
_IDS = random.Random()
_tracer: otel.Tracer | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """One step. `context` is the traceparent for what follows from it."""

    context: bytes
    _recorded: otel.Span | None = None

    def end(self, error: str | None = None) -> None:
        """The step is over; `error` is a stable code where it failed."""
        if self._recorded is not None:
            if error is not None:
                self._recorded.set_attribute(ERROR_TYPE, error)
                self._recorded.set_status(otel.StatusCode.ERROR)
            self._recorded.end()


def configure(service: str, url: str, processor: SpanProcessor | None = None) -> None:
    """Send spans to `url` (OTLP over HTTP); an empty one: nowhere."""
    global _tracer
    if not url and processor is None:
        _tracer = None
        return
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(processor or BatchSpanProcessor(OTLPSpanExporter(endpoint=url)))
    _tracer = provider.get_tracer("ouroboros")


def start(
    name: str, kind: Kind, parent: bytes | None, attributes: Mapping[str, str | int] | None = None
) -> Span:
    """Begin a step named `{operation} {destination}`; without a parent a new trace begins."""
    if _tracer is None:
        return Span(follow(parent))
    before = None if parent is None else context_of(parent)
    span = _tracer.start_span(
        name,
        None if before is None else otel.set_span_in_context(otel.NonRecordingSpan(before)),
        KINDS[kind],
        attributes,
        # A consumer's span is the producer's child, and linked to it: one trace reads as one walk.
        [otel.Link(before)] if before is not None and kind == "consumer" else None,
    )
    made = span.get_span_context()
    context = f"00-{made.trace_id:032x}-{made.span_id:016x}-{made.trace_flags:02x}".encode()
    return Span(context, span)


def process(stage: str, topic: str, partition: int, offset: int, parent: bytes | None) -> Span:
    """The span of a stage that processes one event."""
    if _tracer is None:
        return Span(follow(parent))
    attributes: dict[str, str | int] = {
        SYSTEM: "kafka",
        OPERATION_NAME: "process",
        OPERATION_TYPE: "process",
        DESTINATION: topic,
        PARTITION: str(partition),
        OFFSET: offset,
        GROUP: stage,
    }
    return start(f"process {topic}", "consumer", parent, attributes)


def follow(parent: bytes | None) -> bytes:
    """A traceparent in the parent's trace; of a new trace where there is none."""
    span = b"%016x" % (_IDS.getrandbits(64) or 1)
    if parent is None:
        return b"00-%032x-%s-01" % (_IDS.getrandbits(128) or 1, span)
    return parent[:36] + span + parent[52:]


def trace_id(context: bytes) -> str:
    return context[3:35].decode()


def context_of(parent: bytes) -> otel.SpanContext:
    return otel.SpanContext(
        int(parent[3:35], 16), int(parent[36:52], 16), True, otel.TraceFlags(int(parent[53:55], 16))
    )

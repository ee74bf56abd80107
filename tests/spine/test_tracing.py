"""One trace reads as one walk, whether or not spans are sent anywhere."""

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from spine import tracing
from spine.memory import MemoryLog
from spine.stage import Reject, Stage, Work
from tests.spine.worlds import MemoryWorld, running, scene, until

PARENT = b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"


@pytest.fixture
def sent():
    exporter = InMemorySpanExporter()
    tracing.configure("tests", "", SimpleSpanProcessor(exporter))
    yield exporter
    tracing.configure("tests", "")


def test_without_a_parent_a_new_trace_begins():
    one, two = tracing.start("x", "server", None), tracing.start("x", "server", None)
    assert len(one.context) == 55 and tracing.trace_id(one.context) != tracing.trace_id(two.context)


def test_what_follows_is_a_new_span_of_the_same_trace():
    context = tracing.start("x", "consumer", PARENT).context
    assert tracing.trace_id(context) == "a" * 32
    assert context[36:52] != b"b" * 16 and context[52:] == b"-01"


def test_a_recorded_span_is_the_child_of_its_producer_and_linked_to_it(sent):
    span = tracing.process("preclassifier", "images", 3, 9, PARENT)
    span.end("image.truncated")
    (recorded,) = sent.get_finished_spans()
    assert recorded.name == "process images" and recorded.kind.name == "CONSUMER"
    assert recorded.parent.span_id == recorded.links[0].context.span_id == int("b" * 16, 16)
    assert f"{recorded.context.trace_id:032x}" == "a" * 32
    assert recorded.attributes["messaging.system"] == "kafka"
    assert recorded.attributes["messaging.destination.partition.id"] == "3"
    assert recorded.attributes["messaging.kafka.offset"] == 9
    assert recorded.attributes["error.type"] == "image.truncated"
    assert span.context.decode().split("-")[2] == f"{recorded.context.span_id:016x}"


def test_a_stage_ends_the_span_of_every_event_with_its_error(sent):
    world = MemoryWorld(MemoryLog())
    world.create("results", 4)
    with scene(world, "traced") as play:

        def prepare(event):
            if event.n == 1:
                raise Reject("image.corrupt", "no")

        work = Work(
            play.name,
            (play.thing,),
            prepare,
            lambda items: [[play.answered(i.event)] for i in items],
        )
        play.send(3)
        with running(Stage(work, world.log)):
            until(lambda: play.committed() == 3)
        answer = dict(world.read(play.answer.topic)[0].headers)["traceparent"].decode()
    spans = sent.get_finished_spans()
    assert {s.name for s in spans} == {"process traced-things"} and len(spans) == 3
    assert [s.attributes.get("error.type") for s in spans].count("image.corrupt") == 1
    assert answer.split("-")[2] in {f"{s.context.span_id:016x}" for s in spans}

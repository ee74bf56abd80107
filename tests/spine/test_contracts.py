"""The contracts on file and the classes that speak them say the same."""

import json

import pytest
import yaml
from jsonschema import Draft202012Validator

from spine import schemas
from spine.events import ALL, BY_TYPE, ImageClassified, ImageFailed, ImageReceived, type_of
from spine.topics import CONTRACTS, most_replicas, table, with_dead

EXAMPLES = sorted((CONTRACTS / "examples").glob("*.json"))


@pytest.mark.parametrize("name", schemas.documents())
def test_what_is_on_file_is_what_the_classes_say(name):
    on_file = (CONTRACTS / name).read_text()
    assert on_file == schemas.documents()[name], "run `make contracts`, and mind the version"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_every_example_of_every_version_is_still_read(path):
    event = BY_TYPE[path.stem].model_validate_json(path.read_bytes())
    written = json.loads(event.model_dump_json())
    kept = json.loads(path.read_text())
    assert {name: written[name] for name in kept} == kept, "nothing of it was lost or changed"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_every_example_fits_its_schema(path):
    schema = json.loads((CONTRACTS / "schemas" / path.name).read_text())
    Draft202012Validator(schema).validate(json.loads(path.read_text()))


@pytest.mark.parametrize("event", ALL, ids=type_of)
def test_every_event_has_an_example(event):
    assert (CONTRACTS / "examples" / f"{type_of(event)}.json").exists()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_an_old_reader_reads_a_newer_writer(path):
    """F28: a field that this version does not know is passed over."""
    newer = json.loads(path.read_text()) | {"a_field_of_tomorrow": {"deep": [1]}}
    BY_TYPE[path.stem].model_validate_json(json.dumps(newer))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_a_new_reader_reads_an_old_writer(path):
    """Only fields with a default may have been added since version one was first written."""
    schema = json.loads((CONTRACTS / "schemas" / path.name).read_text())
    required = set(schema["required"])
    assert required <= set(json.loads(path.read_text())), "a field without a default was added"


def test_every_event_has_its_topic_and_every_topic_its_events():
    by_topic = {name: set(topic.events) for name, topic in table().items()}
    assert by_topic == {t: {e.__name__ for e in ALL if e.topic == t} for t in by_topic}
    assert {event.topic for event in ALL} == set(table())


@pytest.mark.parametrize("example", schemas.EXAMPLES, ids=lambda e: type(e).__name__)
def test_an_event_has_the_key_that_the_table_names(example):
    names = table()[example.topic].key.split("/")
    key = "/".join(str(getattr(example, name)) for name in names)
    assert example.key() == key or example.key().startswith(f"{key}/")


def test_results_go_to_the_partition_that_waits_for_them_and_the_rest_by_key():
    for example in schemas.EXAMPLES:
        rule = table()[example.topic].partitioned_by
        assert example.partition() == (None if rule is None else getattr(example, rule))
    assert {type(e) for e in schemas.EXAMPLES if e.partition() is not None} == {
        ImageClassified,
        ImageFailed,
    }


@pytest.mark.parametrize("profile", ["laptop", "cluster"])
def test_partitions_leave_room_for_the_most_replicas(profile):
    topics, most = table(), most_replicas(profile)
    assert topics["images"].partitions[profile] >= 5 * most["preclassifier"]
    assert topics["features"].partitions[profile] >= 5 * most["classifier"]
    assert topics["results"].partitions[profile] >= 2 * most["gateway"]


def test_every_work_topic_has_a_dead_letter_twin_with_a_longer_memory():
    every = with_dead("cluster")
    for name, topic in table().items():
        if topic.dead:
            assert every[f"{name}.dead"].retention_hours > min(topic.retention_hours, 72)
    assert not any(t.dead for n, t in every.items() if n.endswith(".dead"))


def test_records_stay_small():
    for example in schemas.EXAMPLES:
        assert len(example.model_dump_json()) < 2048
    big = schemas.Embedding(shape=(1280,), data="A" * 3416)
    features = next(e for e in schemas.EXAMPLES if isinstance(e, schemas.FeaturesExtracted))
    assert len(features.model_copy(update={"embedding": big}).model_dump_json()) < 8192


def test_the_asyncapi_document_points_only_at_what_there_is():
    document = yaml.safe_load((CONTRACTS / "asyncapi.yaml").read_text())
    assert document["asyncapi"] == "3.0.0"
    for channel in document["channels"].values():
        for message in channel["messages"].values():
            name = message["$ref"].rsplit("/", 1)[1]
            payload = document["components"]["messages"][name]["payload"]["$ref"]
            assert (CONTRACTS / payload).exists()
    for operation in document["operations"].values():
        assert operation["channel"]["$ref"].rsplit("/", 1)[1] in document["channels"]


def test_an_event_cannot_be_changed():
    example = next(e for e in schemas.EXAMPLES if isinstance(e, ImageReceived))
    with pytest.raises(ValueError, match="frozen"):
        example.attempt = 3

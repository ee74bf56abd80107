"""The contracts on file, made from the classes that speak them.

`python -m spine.schemas` (or `make contracts`) writes `contracts/`; the tests compare. A golden
example is written once for each version and then stays: it is what is on the wire already.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import yaml

from spine import topics
from spine.events import (
    ALL,
    CandidateTrained,
    Embedding,
    Event,
    FeaturesExtracted,
    Guess,
    ImageClassified,
    ImageDeleted,
    ImageFailed,
    ImageLabelled,
    ImageReceived,
    ModelLoaded,
    ModelPromoted,
    ModelRefused,
    type_of,
)

AT = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
IMAGE: Mapping[str, Any] = {
    "image_id": "019b7b9c-5a2e-7c1d-8f00-2f3a4b5c6d7e",
    "client_id": "demo",
    "model": "snakes",
    "received_at": AT,
    "expires_at": AT.replace(minute=5),
    "reply_partition": 3,
    "attempt": 0,
    "ledger": {"gateway.store": 1.2, "gateway.publish": 2.1},
}
REPLICA: Mapping[str, Any] = {
    "replica": "classifier-7d9f-x2x4",
    "service": "classifier",
    "name": "snakes",
    "version": "3f9a1c2b",
    "epoch": 4,
    "at": AT,
}
EXAMPLES: tuple[Event, ...] = (
    ImageReceived(
        **IMAGE,
        blob="images/019b7b9c-5a2e-7c1d-8f00-2f3a4b5c6d7e",
        sha256="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        content_type="image/jpeg",
        size=92160,
    ),
    FeaturesExtracted(
        **IMAGE,
        feature_space="fs-1a2b3c4d5e6f",
        embedding=Embedding(shape=(4,), data="ADwAQABCAEQ="),
        readable={"width": 640.0, "height": 480.0, "blur": 0.82},
        hints=("poor_image",),
    ),
    ImageClassified(
        **IMAGE,
        label="Ember Ladderback",
        probability=0.93,
        top=(Guess(label="Ember Ladderback", probability=0.93),),
        decision="confident",
        unknown=False,
        model_version="3f9a1c2b",
        feature_space="fs-1a2b3c4d5e6f",
    ),
    ImageFailed(
        **IMAGE,
        reason="image.truncated",
        detail="The file is cut short. Send the whole photo again.",
        stage="preclassifier",
    ),
    ImageDeleted(image_id=IMAGE["image_id"], client_id="demo", deleted_at=AT),
    ImageLabelled(
        image_id=IMAGE["image_id"],
        client_id="demo",
        model="snakes",
        label="Ember Ladderback",
        labelled_at=AT,
    ),
    CandidateTrained(
        candidate_id="c-1",
        name="snakes",
        version="3f9a1c2b",
        package="models/snakes/3f9a1c2b",
        feature_space="fs-1a2b3c4d5e6f",
        dataset_id="d-1",
        recipe="linear",
        trained_at=AT,
    ),
    ModelPromoted(
        name="snakes",
        version="3f9a1c2b",
        package="models/snakes/3f9a1c2b",
        feature_space="fs-1a2b3c4d5e6f",
        epoch=4,
        previous="0a1b2c3d",
        promoted_by="judge",
        promoted_at=AT,
    ),
    ModelLoaded(**REPLICA),
    ModelRefused(**REPLICA, reason="model.bad_signature"),
)


def documents() -> dict[str, str]:
    """Every generated document by its path below `contracts/`."""
    found = {f"schemas/{type_of(event)}.json": page(schema(event)) for event in ALL}
    found["asyncapi.yaml"] = yaml.safe_dump(asyncapi(), sort_keys=False, width=100)
    return found


def examples() -> dict[str, str]:
    """The golden example of each event's newest version."""
    return {
        f"examples/{type_of(event)}.json": page(event.model_dump(mode="json")) for event in EXAMPLES
    }


def schema(event: type[Event]) -> dict[str, Any]:
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **event.model_json_schema(mode="validation"),
    }


def asyncapi() -> dict[str, Any]:
    """The topics and events as an AsyncAPI 3 document."""
    events = {event.__name__: event for event in ALL}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Ouroboros",
            "version": "1",
            "description": "Every message that crosses Kafka. CloudEvents 1.0 in binary mode: "
            "attributes are headers, the value is plain JSON.",
        },
        "defaultContentType": "application/json",
        "channels": {name: channel(topic) for name, topic in topics.table().items()},
        "operations": {
            f"{service}.{verb}.{name}": {
                "action": action,
                "channel": {"$ref": f"#/channels/{name}"},
                "summary": f"{service} {verb}s {', '.join(topic.events)}",
            }
            for name, topic in topics.table().items()
            for verb, action, services in (
                ("write", "send", topic.writers),
                ("read", "receive", topic.readers),
            )
            for service in services
        },
        "components": {
            "messages": {
                name: {
                    "name": type_of(event),
                    "summary": " ".join((event.__doc__ or "").split()),
                    "payload": {"$ref": f"./schemas/{type_of(event)}.json"},
                }
                for name, event in events.items()
            }
        },
    }


def channel(topic: topics.Topic) -> dict[str, Any]:
    return {
        "address": topic.name,
        "description": f"Key: {topic.key}.",
        "messages": {e: {"$ref": f"#/components/messages/{e}"} for e in topic.events},
        "bindings": {
            "kafka": {
                "bindingVersion": "0.5.0",
                "partitions": topic.partitions["cluster"],
                "topicConfiguration": {
                    "cleanup.policy": ["compact" if topic.compacted else "delete"],
                    "retention.ms": topic.retention_hours * 3_600_000
                    if topic.retention_hours > 0
                    else -1,
                },
            }
        },
    }


def page(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def write() -> None:
    """Write what is generated, and examples of versions that have none yet."""
    for name, text in documents().items():
        (topics.CONTRACTS / name).parent.mkdir(parents=True, exist_ok=True)
        (topics.CONTRACTS / name).write_text(text)
    for name, text in examples().items():
        path = topics.CONTRACTS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_text(text)


if __name__ == "__main__":
    write()

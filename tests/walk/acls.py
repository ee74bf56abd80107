"""The rights of each service on Kafka, as the topic table says: nothing more is granted."""

from collections.abc import Iterator

from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from spine.kafka.brokers import brokers_of
from spine.settings import Settings
from spine.topics import table

Right = tuple[ResourceType, str, AclOperation]
TOPIC, GROUP = ResourceType.TOPIC, ResourceType.GROUP
READ, WRITE = AclOperation.READ, AclOperation.WRITE


def rights_of(service: str) -> Iterator[Right]:
    """What this service may do. A group belongs to the service that its name begins with."""
    for topic in table().values():
        groups = [group for group in topic.groups if group.split("-")[0] == service]
        if service in topic.readers:
            yield TOPIC, topic.name, READ
        if service in topic.writers:
            yield TOPIC, topic.name, WRITE
        for group in groups:
            yield GROUP, group, READ
        # Who consumes in a group buries what it cannot use.
        if groups and topic.dead:
            yield TOPIC, topic.dead_name, WRITE


def grant(settings: Settings, service: str) -> None:
    """Let the user named like the service do what the table says."""
    bindings = [
        AclBinding(
            kind,
            name,
            ResourcePatternType.LITERAL,
            f"User:{service}",
            "*",
            operation,
            AclPermissionType.ALLOW,
        )
        for kind, name, operation in dict.fromkeys(rights_of(service))
    ]
    client = AdminClient(brokers_of(settings).librdkafka())
    for done in client.create_acls(bindings).values():
        done.result(20)

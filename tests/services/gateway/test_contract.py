"""The OpenAPI document that is checked in is the one that the routes make."""

import json
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest

from services.gateway import answer, describe, http
from services.gateway.problems import TABLE
from spine.events import ImageClassified
from spine.topics import CONTRACTS
from tests.services.gateway.conftest import now

PATH = CONTRACTS / "openapi.json"


def made() -> dict[str, Any]:
    desk: Any = SimpleNamespace()
    return http.document(http.api(desk))


def test_the_document_is_the_one_checked_in() -> None:
    text = json.dumps(made(), indent=2, sort_keys=True) + "\n"
    assert PATH.read_text() == text, "run: python -m tests.services.gateway.test_contract"


def test_it_is_openapi_3_1_with_every_route() -> None:
    document = made()
    assert document["openapi"].startswith("3.1")
    routes = {(p, m) for p, item in document["paths"].items() for m in item}
    assert routes >= {
        ("/v1/images", "post"),
        ("/v1/images", "get"),
        ("/v1/images/{image_id}", "get"),
        ("/v1/images/{image_id}", "delete"),
        ("/v1/images/{image_id}/events", "get"),
        ("/v1/models", "get"),
    }
    posted = document["paths"]["/v1/images"]["post"]
    assert {p["name"] for p in posted["parameters"]} == {"model", "Prefer", "Idempotency-Key"}
    assert len(posted["requestBody"]["content"]) == 4


def test_every_status_of_a_problem_is_documented_somewhere() -> None:
    documented = {
        int(status)
        for item in made()["paths"].values()
        for route in item.values()
        for status in route["responses"]
    }
    assert {row[0] for row in TABLE.values()} - documented == {405}


@pytest.mark.parametrize("example", [describe.ANSWER, describe.FAILED, describe.TICKET])
def test_the_examples_hold_to_their_schema(example: dict[str, Any]) -> None:
    jsonschema.validate(example, describe.IMAGE_SCHEMA)


def test_a_real_answer_has_the_fields_of_the_example() -> None:
    event = ImageClassified(
        image_id=describe.ID,
        client_id="alice",
        model="snakes",
        received_at=now(),
        expires_at=now(),
        label="a",
        probability=0.5,
        top=(),
        decision="review",
        unknown=False,
        model_version="v",
        feature_space="s",
    )
    told = json.loads(answer.body(event, {}, now()))
    assert list(told) == list(describe.ANSWER)
    jsonschema.validate(told, describe.IMAGE_SCHEMA)


if __name__ == "__main__":
    PATH.write_text(json.dumps(made(), indent=2, sort_keys=True) + "\n")

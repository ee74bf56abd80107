"""Requests made up from the OpenAPI document itself, good and bad: none may break the gateway."""

import asyncio
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.gateway import http
from tests.services.gateway.conftest import PICTURE, RAW, House, World

OPERATIONS = [
    ("/v1/images", "POST"),
    ("/v1/images", "GET"),
    ("/v1/images/{image_id}", "GET"),
    ("/v1/images/{image_id}", "DELETE"),
    ("/v1/images/{image_id}/events", "GET"),
    ("/v1/models", "GET"),
]


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_no_request_of_the_documents_kind_breaks_the_gateway(
    world: World, path: str, method: str
) -> None:
    with asyncio.Runner() as runner:
        context = world.replica(wait_seconds=0)
        house = runner.run(context.__aenter__())
        try:
            post = house.client.post(
                "/v1/images", content=PICTURE, headers=RAW | {"Prefer": "wait=5"}
            )
            known = runner.run(house.answering(post)).json()["id"]
            for mode in schemathesis.GenerationMode:
                try_out(runner, house, known, (path, method, mode))
        finally:
            runner.run(context.__aexit__(None, None, None))


def try_out(runner: Any, house: House, known: str, what: tuple[str, str, Any]) -> None:
    """`known` is the id of an image that is there, at first."""
    path, method, mode = what
    document = http.document(http.api(house.replica.desk))
    operation = schemathesis.openapi.from_dict(document)[path][method]

    @settings(max_examples=15, deadline=None, database=None, suppress_health_check=HealthCheck)
    @given(case=operation.as_strategy(generation_mode=mode), real=st.booleans())
    def send(case: Any, real: bool) -> None:
        if real and "image_id" in case.path_parameters:
            case.path_parameters["image_id"] = known
        request = prepared(case, house)
        response = runner.run(
            house.client.request(
                request.method, request.url, headers=dict(request.headers), content=request.body
            )
        )
        assert response.status_code < 500, (request.method, request.url, response.text)
        if response.status_code >= 400:
            assert response.headers["content-type"] == "application/problem+json"
        documented = operation.definition.raw["responses"]
        assert str(response.status_code) in documented or response.status_code in (404, 405)

    send()


def prepared(case: Any, house: House) -> Any:
    """The case as one request with our key, its body in bytes."""
    given = case.as_transport_kwargs(base_url="http://gateway")
    given["headers"] = {**given["headers"], "Authorization": f"Bearer {house.key}"}
    return requests.Request(**{k: v for k, v in given.items() if k != "timeout"}).prepare()

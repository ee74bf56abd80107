"""Typed settings: one frozen class a service, read once from environment variables.

A field of `Settings` is `OUROBOROS_<FIELD>`; a field that a service's class adds is
`<SERVICE>_<FIELD>`. All errors are told together, each by its variable's name.
"""

import os
from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from spine.images import Limits


class BadSettings(SystemExit):
    """Settings that cannot be used; the message names every variable at fault."""


class Settings(BaseModel):
    """What every service needs to know."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    prefix: ClassVar[str] = "OUROBOROS_"

    kafka_url: str = Field(
        "kafka://127.0.0.1:9092",
        description="Kafka, as kafka://host:port,host:port, or kafka+sasl_ssl://user@host:port",
    )
    kafka_password: str = Field("", description="password of the user in kafka_url", repr=False)
    kafka_ca: str = Field("", description="file with the authority that signed the brokers' keys")
    blobs_url: str = Field(
        "file:///tmp/ouroboros/blobs", description="object store: file:///folder or s3://bucket"
    )
    records_url: str = Field(
        "sqlite:////tmp/ouroboros/records.db",
        description="records: sqlite:////file or postgresql://user:password@host/database",
        repr=False,
    )
    model_keys: str = Field(
        "", description="public Ed25519 keys that may sign model packages, hex, comma-separated"
    )
    replica: str = Field(
        "",
        description="name of this replica, where a host runs two of a service; else host and pid",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least level of log lines"
    )
    otlp_url: str = Field("", description="where traces go (OTLP over HTTP); empty: nowhere")
    metrics_port: int = Field(
        0, ge=0, le=65535, description="port of /metrics, /livez and /readyz; 0: any free one"
    )
    metrics_host: str = Field("127.0.0.1", description="address that page listens on")
    drain_seconds: float = Field(
        20, gt=0, description="how long SIGTERM may wait for work in flight"
    )

    @classmethod
    def variable(cls, field: str) -> str:
        """The environment variable of a field."""
        owner = Settings if field in Settings.model_fields else cls
        return f"{owner.prefix}{field.upper()}"

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Read the environment. Raises BadSettings that names each variable at fault."""
        environ = os.environ if environ is None else environ
        given = {
            field: environ[cls.variable(field)]
            for field in cls.model_fields
            if environ.get(cls.variable(field), "") != ""
        }
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            lines = [
                f"  {cls.variable(str(e['loc'][0]))}: {e['msg'].removeprefix('Value error, ')}"
                for e in error.errors()
            ]
            raise BadSettings("settings that cannot be used:\n" + "\n".join(lines)) from None


class GatewaySettings(Settings):
    prefix: ClassVar[str] = "GATEWAY_"

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8080, ge=0, le=65535, description="port of the HTTP API")
    kafka_client: Literal["confluent", "aiokafka"] = Field(
        "confluent", description="which Kafka client the gateway uses"
    )
    require_keys: bool = Field(True, description="whether a request needs an API key")
    default_model: str = Field("snakes", description="model of a request that names none")
    max_bytes: int = Field(15_728_640, gt=0, description="largest image, in bytes")
    bodies_mb: int = Field(256, gt=0, description="MiB that all bodies may take at once")
    max_pixels: int = Field(50_000_000, gt=0, description="most pixels of an image")
    max_side: int = Field(12_000, gt=0, description="longest side of an image, in pixels")
    patience_seconds: float = Field(
        60, gt=0, description="how long after acceptance an answer is still wanted"
    )
    wait_seconds: float = Field(
        20, ge=0, description="how long POST waits for the answer where Prefer does not say"
    )
    client_rate: float = Field(
        500, gt=0, description="images a second of one client, over all replicas"
    )
    client_burst: float = Field(1000, gt=0, description="images of one client at once")
    max_backlog_seconds: float = Field(
        20, gt=0, description="refuse (503) when an answer would take longer than this"
    )
    trusted_hops: int = Field(0, ge=0, description="proxies whose X-Forwarded-For is believed")


class PreclassifierSettings(Settings):
    prefix: ClassVar[str] = "PRECLASSIFIER_"

    backbone: str = Field(
        "", description="blob prefix of the backbone package; empty: the one that ships"
    )
    workers: int = Field(0, ge=0, description="batches computed at once; 0: the CPUs one may use")
    decoders: int = Field(0, ge=0, description="decoding processes; 0: the CPUs one may use")
    batch: int = Field(8, gt=0, le=64, description="most images in one run of the backbone")
    decode_seconds: float = Field(5, gt=0, description="longest decode of one image")
    max_bytes: int = Field(
        15_728_640, gt=0, description="largest image, in bytes; no less than the gateway's"
    )
    decode_memory_mb: int = Field(768, gt=0, description="most memory of a decoding process")
    max_pixels: int = Field(50_000_000, gt=0, description="most pixels of an image")
    max_side: int = Field(12_000, gt=0, description="longest side of an image, in pixels")
    stand_in_ms: float = Field(
        0, ge=0, description="sleep for each image that plays a heavier model in scaling tests"
    )
    journal: str = Field(
        "", description="file of what is in flight; empty: a temporary one, by replica or host"
    )

    @property
    def limits(self) -> Limits:
        """What it is willing to decode."""
        return Limits(self.max_bytes, self.max_pixels, self.max_side)


class ClassifierSettings(Settings):
    prefix: ClassVar[str] = "CLASSIFIER_"

    memory_mb: int = Field(
        0, ge=0, description="most megabytes of heads at once, old and new; 0: no limit"
    )
    batch: int = Field(32, gt=0, le=256, description="most feature records in one run")
    review_below: float = Field(
        0.6, ge=0, le=1, description="answers with a lower probability want a person's look"
    )
    stand_in_ms: float = Field(0, ge=0, description="sleep for each image, in scaling tests")
    journal: str = Field(
        "", description="file of what is in flight; empty: a temporary one, by replica or host"
    )

"""An S3 server: versitygw over a folder."""

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ouroboros.parts.process import Process, answers, free_port, launch, tool

MODULE = "github.com/versity/versitygw/cmd/versitygw@v1.8.0"


@dataclass(frozen=True)
class S3:
    """A running S3 server with one bucket."""

    folder: Path
    port: int
    bucket: str
    env: Mapping[str, str] = field(repr=False)  # AWS_…: endpoint, region, keys
    process: list[Process] = field(repr=False, compare=False)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """What `OUROBOROS_BLOBS_URL` takes; `env` must be set with it."""
        return f"s3://{self.bucket}"

    @property
    def pid(self) -> int:
        return self.process[0].pid

    def make_bucket(self, name: str) -> str:
        """A further bucket; its URL."""
        (self.folder / "buckets" / name).mkdir(exist_ok=True)
        return f"s3://{name}"

    def kill(self) -> None:
        """kill -9."""
        self.process[0].kill()

    def restart(self) -> None:
        """Start again on the same port, data and keys."""
        self.kill()
        self.process[0] = run_s3(self.folder, self.port, self.env)

    def stop(self) -> None:
        self.process[0].stop(5)


def start_s3(folder: Path, bucket: str = "ouroboros", port: int | None = None) -> S3:
    """Start versitygw on `folder`, with fresh keys. Raises PartMissing, PartFailed."""
    folder = folder.absolute()
    (folder / "buckets" / bucket).mkdir(parents=True, exist_ok=True)
    (folder / "meta").mkdir(exist_ok=True)
    port = port or free_port()
    env = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": secrets.token_hex(10),
        "AWS_SECRET_ACCESS_KEY": secrets.token_hex(20),
    }
    return S3(folder, port, bucket, env, [run_s3(folder, port, env)])


def run_s3(folder: Path, port: int, env: Mapping[str, str]) -> Process:
    keys = {
        "ROOT_ACCESS_KEY": env["AWS_ACCESS_KEY_ID"],
        "ROOT_SECRET_KEY": env["AWS_SECRET_ACCESS_KEY"],
    }
    # Not every file system has the attributes that objects' metadata would lie in.
    metadata = [] if has_attributes(folder) else ["--sidecar", str(folder / "meta")]
    options = ["--port", f"127.0.0.1:{port}", "--keep-alive", "--quiet"]
    command = [versitygw(), *options, "posix", *metadata, str(folder / "buckets")]
    process = launch("versitygw", command, folder, keys)
    process.wait_until(lambda: answers(port), 30)
    return process


def versitygw() -> str:
    """The path of the server's program. Raises PartMissing."""
    return tool("versitygw", MODULE, "versitygw")


def has_attributes(folder: Path) -> bool:
    if not hasattr(os, "setxattr"):
        return True  # macOS has them, Python there has no call for them
    try:
        os.setxattr(folder, "user.ouroboros", b"1")
    except OSError:
        return False
    return True

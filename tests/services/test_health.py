"""A service's page of health and metrics listens where its settings say."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

PATIENCE = 60
ELSEWHERE = "127.0.0.2"


def answers(host: str, port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://{host}:{port}/livez", timeout=2) as page:
            return bool(page.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have 127.0.0.1 only")
@pytest.mark.parametrize("service", ["preclassifier", "classifier"])
def test_health_is_told_on_the_address_of_the_settings_alone(service, tmp_path):
    port = free_port()
    environ = {
        **os.environ,
        "OUROBOROS_KAFKA_URL": f"kafka://127.0.0.1:{free_port()}",
        "OUROBOROS_BLOBS_URL": f"file://{tmp_path}",
        "OUROBOROS_METRICS_HOST": ELSEWHERE,
        "OUROBOROS_METRICS_PORT": str(port),
        f"{service.upper()}_JOURNAL": str(tmp_path / "journal"),
        "PRECLASSIFIER_DECODERS": "1",
    }
    command = [sys.executable, "-m", f"services.{service}"]
    with subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL) as process:
        try:
            end = time.monotonic() + PATIENCE
            while not answers(ELSEWHERE, port):
                assert process.poll() is None and time.monotonic() < end
                time.sleep(0.1)
            assert not answers("127.0.0.1", port)
        finally:
            process.kill()

"""A network that fails on demand: toxiproxy between a client and a part."""

import json
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ouroboros.parts.process import Process, answers, free_port, launch, tool

MODULE = "github.com/Shopify/toxiproxy/v2/cmd/server@v2.5.0"


@dataclass(frozen=True)
class Toxiproxy:
    """A running toxiproxy, spoken to through its HTTP API."""

    port: int
    process: Process = field(repr=False, compare=False)

    def proxy(self, name: str, to_port: int, port: int | None = None) -> int:
        """Make a proxy to 127.0.0.1:`to_port`; the port where it listens."""
        listen = port or free_port()
        body = {"name": name, "listen": f"127.0.0.1:{listen}", "upstream": f"127.0.0.1:{to_port}"}
        self._call("POST", "/proxies", {**body, "enabled": True})
        return listen

    def toxic(self, proxy: str, kind: str, stream: str = "downstream", **attributes: int) -> None:
        """Add a fault, as `toxic("kafka", "latency", latency=30)`; times in ms, rates in KB/s."""
        body = {"name": kind, "type": kind, "stream": stream, "attributes": attributes}
        self._call("POST", f"/proxies/{proxy}/toxics", body)

    def enable(self, proxy: str, up: bool) -> None:
        """Let connections through, or refuse new ones and cut those there are."""
        self._call("POST", f"/proxies/{proxy}", {"enabled": up})

    def reset(self) -> None:
        """Enable every proxy and remove every fault."""
        self._call("POST", "/reset", {})

    def stop(self) -> None:
        self.process.kill()

    def _call(self, method: str, path: str, body: dict[str, Any]) -> None:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            data=json.dumps(body).encode(),
            headers={"content-type": "application/json", "user-agent": "ouroboros"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            answer.read()


def start_toxiproxy(folder: Path) -> Toxiproxy:
    """Start toxiproxy; its log lies in `folder`. Raises PartMissing, PartFailed."""
    port = free_port()
    command = [toxiproxy_server(), "-host", "127.0.0.1", "-port", str(port)]
    process = launch("toxiproxy", command, folder)
    process.wait_until(lambda: answers(port), 30)
    return Toxiproxy(port, process)


def toxiproxy_server() -> str:
    """The path of its program. Raises PartMissing."""
    return tool("toxiproxy-server", MODULE, "server")

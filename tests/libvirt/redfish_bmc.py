"""A computer's management controller that speaks Redfish over HTTPS on loopback, and can be told to misbehave."""

from __future__ import annotations

import base64
import json
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SYSTEM = "/redfish/v1/Systems/1"
RESET = f"{SYSTEM}/Actions/ComputerSystem.Reset"
USERNAME, PASSWORD = "fence", "s3cret word #1"


class RedfishBmc:
    """`delay_s`: how long the computer takes to obey. `lies`: it takes orders and does nothing. `hangs`: no answer."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.delay_s = 0.0
        self.lies = False
        self.hangs = threading.Event()
        self.orders: list[str] = []
        self.paths: list[str] = []
        self._is_on = True
        self._changes_at_s = 0.0
        self._becomes_on = True

    @property
    def power(self) -> str:
        if time.monotonic() >= self._changes_at_s:
            self._is_on = self._becomes_on
        return "On" if self._is_on else "Off"

    def reset(self, kind: str) -> None:
        self.orders.append(kind)
        if not self.lies:
            self._becomes_on = kind in ("On", "ForceRestart")
            self._changes_at_s = time.monotonic() + self.delay_s

    @property
    def device(self) -> dict[str, str | int | float | bool]:
        return {
            "type": "redfish",
            "ip": "127.0.0.1",
            "ipport": self.port,
            "username": USERNAME,
            "password": PASSWORD,
            "ssl_insecure": True,
            "power_wait": 0,
        }


class _Handler(BaseHTTPRequestHandler):
    bmc: RedfishBmc

    def log_message(self, *_: object) -> None:
        return

    def do_GET(self) -> None:
        bodies = {
            "/redfish/v1": {"Systems": {"@odata.id": "/redfish/v1/Systems"}},
            "/redfish/v1/Systems": {"Members": [{"@odata.id": SYSTEM}]},
            SYSTEM: {"PowerState": self.bmc.power, "Actions": {"#ComputerSystem.Reset": {"target": RESET}}},
        }
        self._answer(bodies.get(self.path.rstrip("/")))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self._may() and self.path == RESET:
            self.bmc.reset(body["ResetType"])
        self._answer({})

    def _may(self) -> bool:
        expected = base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()
        return self.headers.get("Authorization") == f"Basic {expected}"

    def _answer(self, body: object) -> None:
        self.bmc.paths.append(self.path)
        while self.bmc.hangs.is_set():
            time.sleep(0.05)
        status = 404 if body is None else 200
        if not self._may():
            status, body = 401, {"error": {"message": "the account is not known"}}
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def redfish_bmc(directory: Path) -> Iterator[RedfishBmc]:
    """Its certificate is its own, as it is with most of them."""
    certificate = directory / "bmc.pem"
    files = ["-keyout", str(certificate), "-out", str(certificate)]
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=127.0.0.1",
            *files,
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    handler = type("Handler", (_Handler,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.block_on_close = False
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that was killed
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    bmc = handler.bmc = RedfishBmc(server.server_address[1])  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield bmc
    finally:
        bmc.hangs.clear()
        server.shutdown()
        server.server_close()
        thread.join()

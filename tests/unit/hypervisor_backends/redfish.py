"""A power device that speaks Redfish over HTTPS on loopback, as far as `fence_redfish` asks: one computer, moods."""

from __future__ import annotations

import base64
import json
import ssl
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

SYSTEM = "/redfish/v1/Systems/1"


class PowerDevice:
    """`mood`: "" works, "hangs" answers never, "lies" takes orders and does nothing, "slow" acts a second later."""

    def __init__(self, directory: Path, username: str = "admin", password: str = "s3cret-word") -> None:
        self.username = username
        self.password = password
        self.power = "On"
        self.mood = ""
        self.orders: list[str] = []
        device = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                device.serve(self, None)

            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length", "0"))
                device.serve(self, json.loads(self.rfile.read(length) or b"{}"))

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name
                """Nothing: a test says what matters."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.socket = _tls(directory).wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def serve(self, request: BaseHTTPRequestHandler, order: dict[str, Any] | None) -> None:
        if self.mood == "hangs":
            time.sleep(5)
            return
        expected = "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
        if request.headers.get("Authorization") != expected:
            _answer(request, 401, {"error": "who are you"})
        elif order is None:
            _answer(request, 200, self._resource(request.path.rstrip("/")))
        else:
            self._obey(order["ResetType"])
            _answer(request, 200, {})

    def _resource(self, path: str) -> dict[str, Any]:
        if path == SYSTEM:
            target = f"{SYSTEM}/Actions/ComputerSystem.Reset"
            allowable = ["On", "ForceOff", "ForceRestart"]
            reset = {"target": target, "ResetType@Redfish.AllowableValues": allowable}
            return {"PowerState": self.power, "Actions": {"#ComputerSystem.Reset": reset}}
        if path == "/redfish/v1/Systems":
            return {"Members": [{"@odata.id": SYSTEM}]}
        return {"Systems": {"@odata.id": "/redfish/v1/Systems"}}

    def _obey(self, kind: str) -> None:
        self.orders.append(kind)
        if self.mood == "lies":
            return
        power = "Off" if kind == "ForceOff" else "On"
        if self.mood == "slow":
            threading.Timer(1.0, lambda: setattr(self, "power", power)).start()
        else:
            self.power = power

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _tls(directory: Path) -> ssl.SSLContext:
    """With a certificate that nobody signed, as such devices come."""
    key, certificate = directory / "key.pem", directory / "certificate.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "1",
        "-subj",
        "/CN=localhost",
    ]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, *files], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def _answer(request: BaseHTTPRequestHandler, code: int, body: dict[str, Any]) -> None:
    data = json.dumps(body).encode()
    request.send_response(code)
    request.send_header("Content-Type", "application/json")
    request.send_header("Content-Length", str(len(data)))
    request.end_headers()
    request.wfile.write(data)

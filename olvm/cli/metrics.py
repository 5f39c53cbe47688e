"""`olvm metrics`: the data center for Prometheus, on a local endpoint or once on stdout."""

from __future__ import annotations

import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Annotated

from cyclopts import Parameter

from olvm.api.data_center import DataCenter
from olvm.api.metrics import CONTENT_TYPE, exposition
from olvm.cli.connection import data_center
from olvm.cli.options import CONNECTING, Connecting
from olvm.model.errors import BadInput, OlvmError

USUAL_LISTEN = "127.0.0.1:9177"
REQUEST_TIMEOUT_S = 10


def metrics(
    *,
    listen: Annotated[
        str, Parameter(help="Where to answer GET /metrics; port 0 takes a free one.", metavar="HOST:PORT")
    ] = USUAL_LISTEN,
    once: Annotated[bool, Parameter(negative=(), help="Print them once instead.")] = False,
    options: Connecting = CONNECTING,
) -> int:
    """Serve Prometheus metrics until Ctrl-C. There is no password: listen where only Prometheus comes."""
    host, port = address_of(listen)
    with data_center(options) as dc:
        if once:
            sys.stdout.write(exposition(dc))
            return 0
        with ThreadingHTTPServer((host, port), handler_of(dc)) as server:
            print(f"olvm: metrics at http://{host}:{server.server_port}/metrics", file=sys.stderr, flush=True)
            server.serve_forever()
    return 0


def address_of(listen: str) -> tuple[str, int]:
    """Raises BadInput for what is not HOST:PORT."""
    host, _, port = listen.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise BadInput(f"--listen {listen!r} is no address; write it as {USUAL_LISTEN}")
    return host, int(port)


def handler_of(dc: DataCenter) -> type[BaseHTTPRequestHandler]:
    one_at_a_time = threading.Lock()  # a scrape that comes before the last one ended waits for it

    class Handler(BaseHTTPRequestHandler):
        timeout = REQUEST_TIMEOUT_S

        def do_GET(self) -> None:
            if self.path.split("?")[0] != "/metrics":
                self._answer(404, "the metrics are at /metrics\n")
                return
            try:
                with one_at_a_time:
                    text = exposition(dc)
            except OlvmError as error:
                self._answer(503, f"{error.message}\n")
            else:
                self._answer(200, text)

        def _answer(self, status: int, text: str) -> None:
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", CONTENT_TYPE if status == 200 else "text/plain; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
            """A scrape every few seconds is no news."""

    return Handler

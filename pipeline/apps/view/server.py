"""HTTP on this machine alone, for one page: it reads, and writes nothing.

Whoever does not know the random token of the address gets nothing. Requests for another host are refused, so that a
page of the internet whose name was turned to 127.0.0.1 (DNS rebinding) reaches nothing either. Everything the page
needs comes from here: its policy allows no other source.
"""

import json
import secrets
import threading
import traceback
import webbrowser
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any, ClassVar, Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

from pipeline.errors import UserError
from pipeline.logs import get_logger
from pipeline.text_tables import printable

log = get_logger(__name__)

HOST = "127.0.0.1"
MAX_BODY_BYTES = 64 << 20
_TOKEN_BYTES = 24
_TIMEOUT_S = 60
_STATIC = {
    "": ("index.html", "text/html; charset=utf-8"),
    **{name: (name, "text/javascript; charset=utf-8") for name in ("main.js", "common.js", "frames.js", "tiles.js",
                                                                   "events.js")},
    "style.css": ("style.css", "text/css; charset=utf-8"),
}  # fmt: skip
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(frozen=True)
class Answer:
    """What a request gets.

    Attributes
    ----------
    kind : str
        Content type.
    length : int
        Bytes in all.
    parts : iterable of bytes
        They may be computed while they are sent.
    name : str, optional
        The file that the browser saves it as.
    """

    kind: str
    length: int
    parts: Iterable[bytes]
    name: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_bytes(cls, body: bytes, kind: str = "application/octet-stream") -> "Answer":
        """A body that is known."""
        return cls(kind, len(body), [body])

    @classmethod
    def of_json(cls, value: Any) -> "Answer":
        """A value without NaN."""
        return cls.of_bytes(json.dumps(value, allow_nan=False).encode(), "application/json")


class Site(Protocol):
    """What is shown. It is asked by one thread at a time."""

    def get(self, path: Sequence[str], query: Mapping[str, str]) -> Answer | None:
        """Answer a request below the token; None for what there is not.

        Raises
        ------
        UserError
            For a request that cannot be answered; the page shows the text.
        """

    def post(self, path: Sequence[str], body: bytes) -> Answer | None:
        """Answer a request with a body. Nothing may be written."""


class ViewServer(ThreadingHTTPServer):
    """Serves a `Site` at `url`.

    Parameters
    ----------
    site : Site
    port : int
        0: any that is free.
    """

    daemon_threads = True
    allow_reuse_address = False

    def __init__(self, site: Site, port: int = 0) -> None:
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise UserError(
                f"cannot listen on port {port} ({reason}); choose another --port, or leave it out"
            ) from error
        self.site, self.lock = site, threading.Lock()
        self.token = secrets.token_urlsafe(_TOKEN_BYTES)
        self.hosts = {f"{name}:{self.server_port}" for name in (HOST, "localhost")}

    @property
    def url(self) -> str:
        """The address, with the token."""
        return f"http://{HOST}:{self.server_port}/{self.token}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away is no news."""
        log.debug("%s", traceback.format_exc())


def serve(site: Site, port: int = 0, *, announce: Callable[[str], None], open_browser: bool = True) -> None:
    """Serve a site until Ctrl-C; `announce` gets the address.

    Raises
    ------
    UserError
        If the port is taken.
    """
    with ViewServer(site, port) as server:
        announce(server.url)
        log.info("only on this machine, and only with this address; Ctrl-C ends it")
        if open_browser:
            threading.Thread(target=webbrowser.open, args=(server.url,), daemon=True).start()
        try:
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            log.info("ended")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "lightpool", ""
    timeout = _TIMEOUT_S
    server: ViewServer
    _PARTS: ClassVar[int] = 16  # of a path, at most

    def do_GET(self) -> None:
        path = self._path()
        if path is None:
            return
        if len(path) == 1 and path[0] in _STATIC:
            name, kind = _STATIC[path[0]]
            self._send(Answer.of_bytes((files("pipeline") / "data" / "view" / name).read_bytes(), kind))
            return
        query = dict(parse_qsl(urlsplit(self.path).query))
        self._answer(lambda: self.server.site.get(path, query))

    def do_POST(self) -> None:
        path = self._path()
        if path is None:
            return
        origin = self.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc not in self.server.hosts:
            self._refuse(HTTPStatus.FORBIDDEN, "requests of other pages are refused")
            return
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {MAX_BODY_BYTES} bytes are accepted")
            return
        body = self.rfile.read(int(length))
        self._answer(lambda: self.server.site.post(path, body))

    def _other_method(self) -> None:
        self._refuse(HTTPStatus.METHOD_NOT_ALLOWED, "only GET and POST are answered", Allow="GET, POST")

    do_HEAD = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_TRACE = do_CONNECT = _other_method

    def _path(self) -> list[str] | None:
        """Parts of the path behind the token; None after a refusal."""
        if self.headers.get("Host", "") not in self.server.hosts:
            self._refuse(HTTPStatus.FORBIDDEN, "only 127.0.0.1 and localhost are answered")
            return None
        _, token, *path = urlsplit(self.path).path.split("/", self._PARTS)
        if not secrets.compare_digest(token.encode(), self.server.token.encode()):
            self._refuse(HTTPStatus.FORBIDDEN, "the address lacks its token; take it from the terminal")
            return None
        if not path:
            self._refuse(HTTPStatus.NOT_FOUND, "the address ends in /")
            return None
        return [unquote(part) for part in path]

    def _answer(self, ask: Callable[[], Answer | None]) -> None:
        try:
            with self.server.lock:
                answer = ask()
        except UserError as error:
            self._refuse(HTTPStatus.BAD_REQUEST, printable(str(error)))
            return
        except Exception:
            log.error("%s", traceback.format_exc())
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, "a fault of lightpool; see the terminal")
            return
        if answer is None:
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such thing")
        else:
            self._send(answer)

    def _send(self, answer: Answer) -> None:
        self.send_response(HTTPStatus.OK)
        self._headers({"Content-Type": answer.kind, "Content-Length": str(answer.length), **answer.headers})
        if answer.name is not None:
            self.send_header("Content-Disposition", f'attachment; filename="{answer.name}"')
        self.end_headers()
        parts = iter(answer.parts)
        while True:
            with self.server.lock:
                part = next(parts, None)
            if part is None:
                return
            self.wfile.write(part)

    def _refuse(self, status: HTTPStatus, text: str, **headers: str) -> None:
        body = text.encode()
        self.close_connection = True  # a body may be unread
        self.send_response(status)
        self._headers(
            {"Content-Type": "text/plain; charset=utf-8", "Content-Length": str(len(body)), "Connection": "close"}
            | headers
        )
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _headers(self, own: Mapping[str, str]) -> None:
        for name, value in {**_HEADERS, **own}.items():
            self.send_header(name, value)

    def log_message(self, format: str, *args: Any) -> None:
        """To the log, with the token left out."""
        log.debug("%s", (format % args).replace(self.server.token, "TOKEN"))

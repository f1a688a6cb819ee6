"""Who may speak to the app: a layer before all that Streamlit serves, its WebSocket included."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping
from secrets import compare_digest
from urllib.parse import urlsplit

from starlette.datastructures import QueryParams
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

NO_TOKEN = "This app asks for a token: open the link that `interp app` printed."


class Gate:
    """Lets through what comes to one of the app's own names, from its own pages, with its token.

    A page of another site reaches a server on this machine by a name of its own that it lets point
    here (DNS rebinding); the browser then takes both for one site. So a name in `Host` must be
    known. An IP address cannot be made to point elsewhere, and any is taken. An `Origin` other than
    the host is that of another site's script. The link with `?token=` leaves the token in a cookie.

    Args:
        hosts: the names, in small letters, without ports.
        token: what is asked for; "" lets everyone in who reaches the address.
        cookie: the cookie's name; browsers keep one jar for all ports of a host.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str], token: str, cookie: str) -> None:
        self.app, self.hosts, self.token, self.cookie = app, hosts, token, cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = None if scope["type"] == "lifespan" else self._answer(HTTPConnection(scope))
        if answer is None:
            await self.app(scope, receive, _unframed(send))
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await answer(scope, receive, send)

    def _answer(self, request: HTTPConnection) -> Response | None:
        """What is said instead of letting a request through, if anything."""
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        if not self._is_own(_name(host)):
            also = "`interp app --host NAME` adds a name."
            return PlainTextResponse(f"This app is not served under this name. {also}", 403)
        if origin is not None and urlsplit(origin).netloc != host:
            return PlainTextResponse("This comes from a page of another site.", 403)
        if not self.token:
            return None
        if request.scope["type"] == "http" and self._is_right(request.query_params, "token"):
            return self._welcome(request)
        if self._is_right(request.cookies, self.cookie):
            return None
        return PlainTextResponse(NO_TOKEN, 403)

    def _is_own(self, name: str) -> bool:
        return name in self.hosts or _is_address(name)

    def _is_right(self, given: Mapping[str, str], key: str) -> bool:
        return compare_digest(given.get(key, "").encode(), self.token.encode())

    def _welcome(self, request: HTTPConnection) -> Response:
        """The same page without the token in its address, which would stay in the history."""
        rest = QueryParams([(k, v) for k, v in request.query_params.multi_items() if k != "token"])
        page = request.url.path.rpartition("/")[2]
        response = RedirectResponse(f"./{page}{'?' if rest else ''}{rest}", 303)
        secure = request.url.scheme == "https"
        response.set_cookie(self.cookie, self.token, secure=secure, httponly=True, samesite="lax")
        return response


def _name(host: str) -> str:
    """The name in a `Host` header, without its port; "" if it is none."""
    try:
        parts = urlsplit(f"//{host}")
    except ValueError:
        return ""
    return (parts.hostname or "").rstrip(".") if parts.netloc == host and "@" not in host else ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _unframed(send: Send) -> Send:
    """No other site may show the app in a frame and have its visitors press what is in it."""

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            rule = (b"content-security-policy", b"frame-ancestors 'self'")
            message = {**message, "headers": [*message.get("headers", ()), rule]}
        await send(message)

    return sent

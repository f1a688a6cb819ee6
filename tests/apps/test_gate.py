"""Who may speak to the app: before any of its pages, files and WebSocket is reached."""

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from interp.apps.gate import Gate

TOKEN = "5f3a"
STREAM = "ws://localhost:8501/_stcore/stream"


async def stream(socket):
    await socket.accept()
    await socket.send_text("in")
    await socket.close()


INSIDE = Starlette(
    routes=[
        WebSocketRoute("/_stcore/stream", stream),
        Route("/{path:path}", lambda _: PlainTextResponse("in"), methods=["GET", "PUT"]),
    ]
)


def client(token="", host="localhost:8501", hosts=("localhost", "lab.example")):
    return TestClient(
        Gate(INSIDE, hosts, token, "interp-8501"), f"http://{host}", follow_redirects=False
    )


def connects(visitor, **headers):
    try:
        with visitor.websocket_connect(STREAM, headers=headers) as socket:
            return socket.receive_text() == "in"
    except WebSocketDisconnect:
        return False


OWN = ["localhost", "LOCALHOST:8501", "lab.example.", "127.0.0.1:8501", "[::1]:8501", "10.1.2.3"]
FOREIGN = ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8501", "x@localhost"]
FOREIGN += ["", "[::1", "localhost/../evil.example"]


@pytest.mark.parametrize("host", [*OWN, *FOREIGN])
def test_a_foreign_name_is_refused(host):
    """A page that lets its own name point at this machine sends that name."""
    visitor = client()
    shown = visitor.get("/", headers={"Host": host})
    assert (shown.status_code == 200) == (host in OWN) == connects(visitor, Host=host)
    assert shown.text == "in" or "not served under this name" in shown.text


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_a_script_of_another_site_is_refused(method):
    own, other = "http://localhost:8501", "http://localhost:3000"
    visitor = client()
    for origin, status in ((own, 200), (other, 403), ("null", 403), ("http://evil.example", 403)):
        said = visitor.request(method, "/_stcore/upload_file/a/b", headers={"Origin": origin})
        assert said.status_code == status, origin
        assert connects(visitor, Origin=origin) == (status == 200)


@pytest.mark.parametrize("path", ["/", "/steer", "/_stcore/health", "/media/x.csv"])
def test_without_the_token_nothing_is_shown(path):
    visitor = client(TOKEN)
    for asked in (path, f"{path}?token=", f"{path}?token=5f3b"):
        said = visitor.get(asked)
        assert (said.status_code, said.text == "in") == (403, False)
    assert not connects(visitor)
    assert not connects(visitor, Cookie="interp-8501=5f3b")


def test_the_link_lets_in_and_is_not_left_in_the_address():
    visitor = client(TOKEN)
    said = visitor.get(f"/steer?word=a%26b&token={TOKEN}&run=x")
    assert said.status_code == 303
    assert said.headers["location"] == "./steer?word=a%26b&run=x"
    assert {"httponly", "samesite=lax"} <= set(said.headers["set-cookie"].lower().split("; "))
    assert visitor.get("/steer").text == "in"
    assert connects(visitor)
    assert visitor.get("/", headers={"Host": "evil.example"}).status_code == 403
    assert client(TOKEN).get(f"//evil.example?token={TOKEN}").headers["location"][:2] == "./"


def test_no_other_site_frames_the_app():
    assert client().get("/").headers["content-security-policy"] == "frame-ancestors 'self'"

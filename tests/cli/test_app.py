"""`interp app`: to whom it is served, and what visitors may open."""

import http.client
import os
import socket
import subprocess
import sys

import pytest
from streamlit.testing.v1 import AppTest

from interp.apps import serve, uploads
from interp.cli import main
from interp.directions import open_directions
from interp.errors import UserError
from interp.lens.files import open_lens
from interp.model.catalog import resolve
from interp.model.weights import open_weights
from interp.saes import open_sae


@pytest.fixture
def served(own_home, monkeypatch, capsys):
    """`served(*options)` -> how the app would be served, and what standard error says."""
    monkeypatch.setenv("INTERP_MODEL_FOLDERS", "")  # what the command sets ends with the test
    monkeypatch.delenv("INTERP_MODEL_FOLDERS")
    monkeypatch.setenv("INTERP_RUNS", os.environ["INTERP_RUNS"])
    calls = []
    monkeypatch.setattr(serve, "serve", lambda *given: calls.append(given))

    def run(*options):
        assert main(["app", *map(str, options)]) == 0
        address, port, hosts, token, listening = calls.pop()
        listening()
        printed = capsys.readouterr()
        return address, hosts, token, printed.out, printed.err

    return run


def test_on_this_machine_it_is_open(served, model_folder):
    address, hosts, token, printed, warned = served("--port", 8765)
    assert (address, hosts, token, warned) == ("127.0.0.1", {"localhost"}, "", "")
    assert "http://127.0.0.1:8765/\n" in printed
    assert resolve(str(model_folder("llama"))).is_dir()


OTHERS = [["--address", "0.0.0.0"], ["--token"], ["--host", "Lab.example"]]


@pytest.mark.parametrize("how", OTHERS, ids=lambda how: how[0])
def test_served_to_others_it_warns_and_asks_for_a_token(served, how):
    address, hosts, token, printed, warned = served(*how, "--port", 8765)
    assert "served to others" in warned
    assert len(token) == 48
    assert token != served(*how)[2]
    assert f":8765/?token={token}\n" in printed
    assert ("lab.example" in hosts) == (how[0] == "--host")
    assert (socket.gethostname().lower() in hosts) == (how[0] == "--address")


def test_what_is_judged_is_what_listens(served):
    """A name is looked up once; the empty address would be every interface."""
    assert served("--address", "localhost")[0] in ("127.0.0.1", "::1")
    assert served("--address", "0")[0] == "0.0.0.0"
    assert main(["app", "--address", ""]) == 2


def steer_page():
    from interp.apps.steer import page

    page()


def test_visitors_open_models_of_allowed_folders_only(served, model_folder, tmp_path, monkeypatch):
    allowed, other = (str(model_folder("llama", hidden_size=size)) for size in (32, 64))
    link = tmp_path / "allowed" / "link"
    link.parent.mkdir()
    link.symlink_to(other)
    served("--token", "--models", allowed, link.parent)
    assert resolve(allowed).is_dir()
    assert resolve("othello-gpt").is_dir()
    refused = [other, str(link), f"{allowed}/../../{other}", "org/model", "~", "~nobody-here", ""]
    for name in refused:
        with pytest.raises(UserError, match="is not allowed here"):
            resolve(name)
    shown = AppTest.from_function(steer_page, default_timeout=120)
    shown.session_state["chosen model"] = other
    shown.run().toggle(key="?live").set_value(True).run()
    assert not shown.exception
    assert "is not allowed here" in shown.error[0].value.replace("\\", "")


def test_visitors_open_files_of_allowed_folders_only(served, model_folder, tmp_path):
    weights = open_weights(str(model_folder("llama")))
    own, other = tmp_path / "own", tmp_path / "other"
    own.mkdir()
    served("--token", "--models", own)
    for place in (other, "/etc", own / ".." / "other", "../other"):
        for opening in (
            lambda at: open_directions(f"{at}"),
            lambda at: open_directions(f"{at}:1"),
            lambda at: open_directions(f"sae:{at}:1"),
            open_sae,
            lambda at: open_lens(f"{at}", weights),
        ):
            with pytest.raises(UserError, match="the app is served to others"):
                opening(place)
    with pytest.raises(UserError, match="holds no directions"):
        open_directions(str(own))
    with pytest.raises(UserError, match="holds no SAEs"):
        open_sae(own)


def test_an_added_name_is_the_owners_word(served, model_folder):
    folder = str(model_folder("llama"))
    assert main(["models", "add", "mine", folder]) == 0
    served("--token")
    assert str(resolve("mine")) == folder


def directions_page():
    from interp.apps.directions import page

    page()


@pytest.mark.parametrize("text", ["/etc", "sae:/etc:1"])
def test_the_box_for_neurons_opens_no_folder(text, own_home):
    shown = AppTest.from_function(directions_page, default_timeout=120)
    shown.session_state["?set"] = "neurons by name"
    shown.session_state["?neurons"] = text
    shown.run()
    assert not shown.exception
    assert "names no neuron" in shown.error[0].value


def upload_page():
    from interp.apps.linearscope import _uploaded

    _uploaded(None)


def test_the_widget_says_the_servers_limit():
    shown = AppTest.from_function(upload_page).run()
    (widget,) = shown.get("file_uploader")
    limits = {widget.proto.max_upload_size_mb, serve._settings("", 1)["server.maxUploadSize"]}
    assert limits == {uploads.LARGEST}


def test_a_stored_run_of_own_code_is_not_run_again_by_the_app():
    """A run folder of a stranger's names the module; the command line is the owner's word."""
    from types import SimpleNamespace

    from interp.apps.linearscope import _another_pixel

    assert _another_pixel(SimpleNamespace(config={"model": "os:getcwd"})) is None


@pytest.fixture
def running(own_home):
    """A server for all interfaces: its port, its token, and the process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "interp", "app", "--address", "0.0.0.0", "--port", str(port)]
    (own_home / ".streamlit").mkdir()
    careless = "[server]\nenableCORS = false\nenableXsrfProtection = false\nmaxUploadSize = 999\n"
    (own_home / ".streamlit" / "config.toml").write_text(careless)
    server = subprocess.Popen(
        command, cwd=own_home, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while "token" not in (line := server.stdout.readline()):
        assert line, server.stderr.read()
    yield port, line.strip().rpartition("=")[2], server
    server.kill()
    server.communicate()


def status(port, path="/", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request("GET", path, headers=headers)
    code = connection.getresponse().status
    connection.close()
    return code


def test_a_real_server_is_behind_the_gate(running):
    port, token, server = running
    assert status(port) == status(port, "/_stcore/host-config") == 403
    cookie = {"Cookie": f"interp-{port}={token}"}
    assert status(port, **cookie) == 200
    assert status(port, **cookie, Host="evil.example") == 403
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    upgrade["Sec-WebSocket-Key"] = "x3JJHMbDL1EzLkh9GBhXDw=="
    assert status(port, "/_stcore/stream", **upgrade) == 403
    own = f"http://127.0.0.1:{port}"
    assert status(port, "/_stcore/stream", **upgrade, **cookie, Origin=own) == 101
    assert status(port, "/_stcore/stream", **upgrade, **cookie, Origin="http://localhost:1") == 403
    server.send_signal(2)
    assert (server.wait(120), server.stderr.read().splitlines()[-1]) == (130, "interp: interrupted")


def test_folders_that_are_not_there_are_said(served, tmp_path, capsys):
    *_, warned = served("--runs", tmp_path / "none")
    assert f"there is no folder {tmp_path / 'none'} yet" in warned
    assert main(["app", "--token", "--models", str(tmp_path / "none")]) == 2
    assert "there is no folder" in capsys.readouterr().err

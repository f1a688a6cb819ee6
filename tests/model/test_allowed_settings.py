"""What a visitor fills in names no file outside, where the app is served to others."""

import os

import pytest

from interp.data import FOLDER
from interp.errors import UserError
from interp.model.allowed import (
    FOLDERS,
    TEXTS,
    check_settings_allowed,
    check_words_allowed,
)

KNOWN = {"smollm2-135m"}


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A store and a folder of models, and a file beside them."""
    for name in ("store", "models", "home"):
        (tmp_path / name).mkdir()
    (tmp_path / "secret.txt").write_text("x")
    (tmp_path / "store" / "own.txt").write_text("x")
    (tmp_path / "store" / "out").symlink_to(tmp_path / "secret.txt")
    monkeypatch.setenv("INTERP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv(FOLDERS, os.pathsep.join(str(tmp_path / n) for n in ("store", "models")))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "value",
    [
        "/etc/passwd", "{}/secret.txt", "secret.txt", "../x", "~/.ssh/id_rsa",
        "store/../secret.txt", "{}/secret.txt,{}/store/own.txt",
        "{}/store/out", "release:layer_1", "org/name", "14.resid_post=/etc/passwd", ".hidden",
        "os:system", "sae:/etc:3",
    ],
)  # fmt: skip
def test_files_outside_are_refused_in_any_setting(served, value):
    value = value.replace("{}", str(served))
    for name in ("corpus", "saes", "lens", "observable", "a_setting_of_tomorrow"):
        with pytest.raises(UserError, match=f"{name} cannot be"):
            check_settings_allowed({name: value}, KNOWN)
        with pytest.raises(UserError, match=f"{name} cannot be"):
            check_settings_allowed({name: ("x", value)}, KNOWN)
    with pytest.raises(UserError, match="is not allowed here"):
        check_settings_allowed({"model": value}, KNOWN)
    with pytest.raises(UserError, match="cannot be"):
        check_words_allowed(("neurons", "tars", "--corpus", value))


def test_what_is_inside_is_not(served):
    for value in ("", "tuned", "subject-pronoun", str(served / "store" / "own.txt"), "0a1b2c3d4e5f",
                  str(FOLDER / "concepts.yaml"), "store/own.txt", "14.resid_post"):  # fmt: skip
        check_settings_allowed({"corpus": value}, KNOWN)
    check_settings_allowed({"model": "smollm2-135m", "k": 3, "x": None, "device": "cuda:1"}, KNOWN)
    check_settings_allowed({"model": str(served / "models" / "m")}, KNOWN)
    check_settings_allowed(dict.fromkeys(TEXTS, "either/or: ~ ../x"), KNOWN)
    check_words_allowed(("neurons", "atlas", "--k", "3"))


def test_on_ones_own_machine_all_is_allowed(monkeypatch):
    monkeypatch.delenv(FOLDERS, raising=False)
    check_settings_allowed({"corpus": "/etc/passwd", "model": "/x"}, KNOWN)
    check_words_allowed(("/etc/passwd",))

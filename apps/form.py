"""A form for any study, from its config class: what `interp STUDY` asks for, as widgets.

What is filled in stands in the URL, so a link opens a form that is filled in already, and any
setting may be given in one: `/new?study=neurons.atlas&k=20`.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path
from typing import Any

import streamlit as st

from interp.analyses import analyses, load
from interp.apps.address import bound, knows
from interp.apps.picking import choose, chosen_model
from interp.apps.words import called, plain
from interp.errors import UserError
from interp.model.allowed import check_settings_allowed
from interp.model.catalog import DEFAULT_MODEL, SHIPPED, WHEELS, added
from interp.plain_text import printable
from interp.runs.fields import Setting, config_of, settings_of
from interp.runs.store import Store

NETWORKS = ("efficientnet-lite0", "waifu2x", "sketch")
"""Networks for pictures that go by a name."""
LENSES = ("final", "tuned", "jacobian")
NAMES: dict[str, Callable[[], list[str]]] = {
    "lens": lambda: ["raw", *LENSES],
    "observable": lambda: list(load("interp.obsprop.task_files:shipped")()),
    "adapter": lambda: ["shipped", "none"],
    "knob": lambda: ["shipped"],
    "task": lambda: list(load("interp.circuits.tasks:shipped")()),
}
"""Settings whose values may be names that come with the workbench."""
RUNS = {
    "lens": ("lens.fit", "lens.tune"),
    "saes": ("saes.train", "darkmatter.ladder", "darkmatter.errors"),
    "sae": ("saes.train", "darkmatter.ladder"),
    "othello.compare saes": ("othello.sae",),
    "activations": ("saes.activations",),
    "circuit": ("circuits.trace", "circuits.group"),
    "compare": ("othello.compare",),
    "adapter": ("knob.finetune", "knob.run"),
    "knob": ("knob.learn", "knob.run"),
}
"""Settings whose values may be stored runs, by their names or study and name: of which studies."""
LONG = 60
"""Letters of a default from which a text gets a box of several lines."""


@cache
def studies() -> dict[str, tuple[str, str]]:
    """Every study: where its class is, and what it is in a sentence. Read from the source, since to
    import all of them takes as many seconds as a person waits."""
    found = {}
    for entry in analyses().values():
        for where in entry.studies:
            module, _, name = where.partition(":")
            said = _declared(module).get(name)
            if not said:
                kind = load(where)
                said = kind.STUDY, (kind.__doc__ or "").strip().partition("\n")[0]
            found[said[0]] = (where, said[1])
    return found


@cache
def _declared(module: str) -> dict[str, tuple[str, str]]:
    """The study and the sentence of each config class that a module writes out."""
    spec = find_spec(module)
    source = Path(spec.origin).read_text("utf-8") if spec and spec.origin else ""
    found = {}
    for node in ast.parse(source).body:
        if not isinstance(node, ast.ClassDef):
            continue
        for line in node.body:
            if not isinstance(line, ast.AnnAssign) or ast.unparse(line.target) != "STUDY":
                continue
            if isinstance(line.value, ast.Constant):
                about = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
                found[node.name] = (str(line.value.value), about)
    return found


def config_kind(study: str) -> Any:
    """A study's config class.

    Raises:
        UserError: there is no such study.
    """
    if study not in studies():
        raise UserError(f"there is no study '{study[:80]}': choose one of the list")
    return load(studies()[study][0])


def filled_in(kind: Any) -> Any:
    """The form of a study; returns the config that is filled in.

    Raises:
        UserError: a value that is none, or one that is not allowed here.
    """
    every = settings_of(kind)
    knows((setting.name for setting in every), all=True)
    first = [s for s in every if not s.advanced]
    rest = [s for s in every if s.advanced]
    given: dict[str, Any] = {}
    narrow = [s for s in first if not _is_wide(s)]
    for pair in zip_longest(narrow[::2], narrow[1::2]):  # row by row: so they stand below each
        for column, setting in zip(st.columns(2), filter(None, pair), strict=False):  # other, too
            with column:
                given[setting.name] = _widget(kind, setting)
    for setting in filter(_is_wide, first):
        given[setting.name] = _widget(kind, setting)
    if rest:
        with st.expander("How it runs: workers, device, seeds, batches"):
            for setting in rest:
                given[setting.name] = _widget(kind, setting)
    return allowed_config(kind, given)


def allowed_config(kind: Any, given: dict[str, Any]) -> Any:
    """The config of what a visitor has filled in: the one place that all of it passes.

    Raises:
        UserError: a value that is none, or one that is not allowed here.
    """
    config = config_of(kind, given)
    values = {setting.name: getattr(config, setting.name) for setting in settings_of(kind)}
    check_settings_allowed(values, {*WHEELS, *SHIPPED, *added(), *NETWORKS})
    return config


def _is_wide(setting: Setting) -> bool:
    """Whether it is a text of several lines, which stands below the others."""
    text = setting.kind is str and not setting.choices
    return text and (setting.several or len(str(setting.usual or "")) > LONG)


def _widget(kind: Any, setting: Setting) -> Any:
    """What a person fills in for a setting."""
    about = f"{setting.about} On the command line: --{setting.name.replace('_', '-')}"
    shown: dict[str, Any] = {
        "label": plain(setting.name.replace("_", " ").capitalize()),
        "help": plain(about),
    }
    if setting.name == "model" and setting.usual == DEFAULT_MODEL:
        return _model(shown)
    if setting.kind is bool:
        return st.toggle(**shown, key=bound(setting.name, bool(setting.usual)))
    if setting.choices and setting.several:
        return _some_of(setting, shown)
    if setting.choices:
        key = bound(setting.name, setting.usual, setting.choices)
        return st.selectbox(options=setting.choices, format_func=printable, key=key, **shown)
    if setting.kind in (int, float) and not setting.several:
        return _number(setting, shown)
    if not setting.several and (offered := offers(kind, setting)):
        return _offered(setting, offered, shown)
    key = bound(setting.name, setting.written(setting.usual), read=str)
    if _is_wide(setting):
        lines = setting.written(setting.usual).count("\n") + 1
        shown["help"] += " One a line\\." if setting.several else ""
        return st.text_area(**shown, key=key, height=min(40 + 26 * max(lines, 2), 240))
    return st.text_input(**shown, key=key, placeholder=place_holder(setting))


def place_holder(setting: Setting) -> str:
    """What an empty box says."""
    if setting.needed:
        return "needed"
    return "numbers, with commas between" if setting.several else "as usual"


def _model(shown: dict[str, Any]) -> str:
    """The model of all pages: to choose one here chooses it in the sidebar, too."""
    known = dict.fromkeys([chosen_model(), *WHEELS, *added()])
    st.session_state["new: model"] = chosen_model()
    st.selectbox(
        **shown,
        options=list(known),
        key="new: model",
        accept_new_options=True,
        format_func=printable,
        on_change=lambda: choose(str(st.session_state["new: model"] or "")),
    )
    return chosen_model()


def _some_of(setting: Setting, shown: dict[str, Any]) -> list[str]:
    """Words of a choice, none of them for all."""

    def read(text: str) -> list[str]:
        return [word for word in text.split(",") if word in setting.choices]

    key = bound(setting.name, list(setting.usual), read=read)
    chosen = st.multiselect(
        options=setting.choices, format_func=printable, key=key, placeholder="as usual", **shown
    )
    return [word for word in chosen if word in setting.choices]


def _number(setting: Setting, shown: dict[str, Any]) -> int | float | None:
    whole = setting.kind is int
    key = bound(setting.name, setting.usual, read=setting.kind)
    number: int | float | None = st.number_input(
        **shown,
        key=key,
        value=None if setting.needed else "min",
        step=1 if whole else None,
        format=None if whole else "%g",
    )
    if number is None and not setting.needed:
        raise UserError(f"{setting.name} is empty: give a number, usually {setting.usual}")
    return number


def _offered(setting: Setting, offered: dict[str, str], shown: dict[str, Any]) -> str:
    """A text for which there are proposals; anything else may be typed."""
    key = bound(setting.name, setting.usual or "", read=str)
    values = dict.fromkeys([setting.usual or "", *offered, str(st.session_state[key] or "")])
    chosen = st.selectbox(
        options=list(values),
        key=key,
        accept_new_options=True,
        format_func=called(offered, "as usual"),
        **shown,
    )
    return str(chosen or "")


def offers(kind: Any, setting: Setting) -> dict[str, str]:
    """Values that a setting may well have, with what they are called."""
    if setting.kind is not str or setting.several:
        return {}
    if setting.name == "model":
        return {name: name for name in (NETWORKS if kind.STUDY[:6] == "linear" else SHIPPED)}
    names = NAMES[setting.name]() if setting.name in NAMES else []
    found = {name: name for name in names}
    of = RUNS.get(f"{kind.STUDY} {setting.name}", RUNS.get(setting.name, ()))
    for study in of:
        for run in Store().looked_through(study)[0]:
            value = run.path.name if setting.name in ("lens", "circuit") else str(run.path)
            found[value] = f"{study} {run.config.get('model', '')} {run.path.name}"
    return found

"""The form of the circuits page that traces a prompt."""

from __future__ import annotations

import streamlit as st

from interp.apps import pool
from interp.apps.address import bound
from interp.apps.picking import chosen_model
from interp.apps.words import placed
from interp.errors import UserError
from interp.runs.store import Run, Store


def traced() -> Run | None:
    """The form; the run that it makes, once it is sent."""
    lenses = _lenses()
    with st.form("ask", border=False):
        prompt = st.text_input(
            "Prompt", key=bound("prompt", ""), placeholder="The keys to the cabinet"
        )
        left, right = st.columns(2)
        target = left.text_input(
            "Target",
            key=bound("target", ""),
            placeholder=" are",
            help="With its space. Empty: the likeliest next token.",
        )
        against = right.text_input(
            "Against (may be empty)", key=bound("against", ""), placeholder=" is"
        )
        other = st.text_input(
            "Counterfactual prompt (may be empty)",
            placeholder="The key to the cabinet",
            help="Of as many tokens. Each node then has an effect too: what the target loses if "
            "it alone is taken from there.",
        )
        left, middle, right = st.columns(3)
        usual = chosen_model()
        model = left.text_input("Model", usual, key=f"trace model {usual}")
        rule = middle.selectbox("Rule", ["half", "gate"], help="How a gated product is shared out.")
        lens = right.selectbox("Lens of the tokens", lenses, format_func=placed)
        pressed = st.form_submit_button("Trace")
    if not pressed:
        return None
    if not prompt:
        raise UserError("the prompt is empty: give one, such as 'The keys to the cabinet'")
    if lens not in lenses:  # a browser can send any text
        raise UserError(f"'{lens}' is no lens of a stored run: choose one of the list")
    from interp.circuits.trace import TraceConfig  # now: it imports torch

    asked = TraceConfig(
        model.strip(),
        prompt=prompt,
        target=target,
        against=against,
        counterfactual=other,
        rule="gate" if rule == "gate" else "half",
        lens=lens,
    )
    with st.spinner("tracing …"):
        return pool.run(asked)


def _lenses() -> list[str]:
    """Those by name, and the stored fits."""
    fits = [run for kind in ("fit", "tune") for run in Store().looked_through(f"lens.{kind}")[0]]
    return ["raw", "final", "tuned", "jacobian", *(str(run.path) for run in fits)]

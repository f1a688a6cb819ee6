"""Views of the prompt page: which parts, heads and neurons say a token, here and in another
text."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from interp.apps.address import bound
from interp.apps.carry import carry_on
from interp.apps.columns import shown_table
from interp.apps.common import link
from interp.apps.offering import code, offer
from interp.apps.prompt_ask import Live, Look
from interp.apps.shown import charts
from interp.apps.words import plain
from interp.errors import UserError
from interp.microscope import figures
from interp.microscope.look import LookConfig
from interp.microscope.names import BIAS, EMBEDDING, Compared, Explained, part_name, spelled
from interp.model.vocabulary import visible

ORDERS = ("contribution", "activation")


def where(look: Look) -> str:
    """The chosen token, in words."""
    return f"{visible(look.tokens['token'].iloc[look.position])} (position {look.position})"


def _explained(look: Look) -> Explained:
    """What is asked for, its tokens as the page shows them."""
    found = look.explained()
    return found._replace(target=spelled(found.target))


def contributions(look: Look) -> None:
    """Every part of the model, as bars that add up to the logit."""
    found = _explained(look)
    parts, total = found.parts, float(found.parts["contribution"].sum())
    inner = parts[~parts["kind"].isin((EMBEDDING, BIAS))]
    largest = parts.iloc[int(parts["contribution"].abs().to_numpy().argmax())]
    charts(
        "parts",
        figures.waterfall(parts, found.target),
        shows=f"What each part adds by itself to the logit of {found.target} after "
        f"{where(look)}, through the final norm (its scale frozen) and the unembedding; before any "
        "soft cap. Each bar begins where the one before it ends. A surprise is a large bar in an "
        "early layer: its output would be read by the unembedding as it is.",
        found=f"The bars add up to {total:.4f}; the model's own logit is {found.value:.4f} "
        f"(difference {abs(total - found.value):.1e}). The largest is "
        f"{part_name(largest['kind'], int(largest['layer']))} with "
        f"{largest['contribution']:+.2f}. Of what attention and MLPs add, in size, the "
        f"last quarter of the layers has {_late(inner):.0%}.",
    )
    command, call = look.call()
    offer(parts, "parts", command, f"{call}run.table('parts')", of=LookConfig.STUDY)


def _late(parts: pd.DataFrame) -> float:
    """The share of the last quarter of the layers, one at least, of attention and MLPs."""
    sizes, layers = parts["contribution"].abs(), int(parts["layer"].max()) + 1
    late = sizes[parts["layer"] >= min(0.75 * layers, layers - 1)]
    return float(late.sum() / sizes.sum()) if sizes.any() else 0.0


def neurons(look: Look) -> None:
    """The strongest neurons, with their words."""
    found = _explained(look)
    if found.neurons.empty:
        raise UserError("this model's neurons have no activation at every token (experts)")
    by = st.segmented_control(
        "Strongest by",
        ORDERS,
        format_func=plain,
        key=bound("by", ORDERS[0], ORDERS),
        required=True,
    )
    active = by == ORDERS[1]
    rows = (
        figures.by_activation(found.neurons) if active else figures.by_contribution(found.neurons)
    )
    first = rows.iloc[0]
    charts(
        "neurons",
        figures.contributions(rows, ORDERS[1] if active else ORDERS[0]),
        shows=f"The neurons with the largest {by or ORDERS[0]}, in size, after {where(look)}. A "
        f"contribution is activation x row of W_down, as the logit of {found.target} reads it. "
        "Beside each stand tokens that it raises there (↑), or lowers (↓) where it speaks against "
        "the target; a negative activation turns the two sides round. A surprise is a large "
        "contribution of a neuron whose tokens have nothing to do with the target.",
        found=f"{first['name']} is the first: activation {first['activation']:.3g}, "
        f"{first['contribution']:+.2f} logits. {_words(first)}",
    )
    _table(rows, ["name", "activation", "contribution", "per_unit", "raises", "lowers"])
    names = list(rows["name"])
    chosen = st.selectbox("Go on with", names, key=bound("neuron", names[0], names))
    with st.container(horizontal=True):
        carry_on(str(chosen), look.model, f"neuron {chosen}")
        link("atlas", "In the neuron atlas", model=look.model, neuron=str(chosen))
    command, call = look.call()
    offer(rows, "neurons", command, f"{call}run.table('neurons')", of=LookConfig.STUDY)


def heads(look: Look) -> None:
    """The strongest heads, where they look and what they write."""
    found = _explained(look)
    rows = found.heads
    if rows.empty:
        raise UserError("this model's attention has no heads of its own")
    tokens, first = look.tokens["token"], rows.iloc[0]
    froms = [f"{at} {visible(tokens[at])}" if at >= 0 else "" for at in rows["source"]]
    carried = f", {first['from_source']:+.2f} of it from {froms[0]}" if froms[0] else ""
    charts(
        "heads",
        figures.contributions(rows),
        shows=f"The heads with the largest direct contribution to {found.target} after "
        f"{where(look)}: what W_O z, all that a head writes there, adds. A surprise is a head that "
        "carries it from a token that does not bear on the target.",
        found=f"Head {first['name']} is the first: {first['contribution']:+.2f} logits{carried}. "
        + _words(first),
    )
    columns = ["name", "contribution", "from", "from_source", "raises", "lowers"]
    _table(
        rows.assign(**{"from": froms}), [each for each in columns if each in rows or each == "from"]
    )
    chosen = st.selectbox("Look into head", list(rows["name"]), key="prompt head")
    st.caption("Its pattern and its OV circuit on this text:")
    code(
        [
            *("interp", "circuits", "head", "--head", str(chosen)),
            *("--prompt", _text(look), "--model", look.model),
        ]
    )
    st.caption(plain(f"Add --target to measure its terms by a token, as {found.target} here."))
    command, call = look.call()
    offer(rows, "heads", command, f"{call}run.table('heads')", of=LookConfig.STUDY)


def _text(look: Look) -> str:
    return look.asked.text if isinstance(look, Live) else str(look.run.config["prompt"])


def compare(look: Look) -> None:
    """The same logit in another text."""
    if isinstance(look, Live):
        other = st.text_input(
            "Another text",
            key=bound("other", ""),
            placeholder="The capital of Italy is",
            help="Of as many tokens it is aligned by position, else by equal tokens.",
        )
        if not other.strip():
            st.info(
                "Type another text, such as this one with a word changed: the view shows which "
                "parts make the difference."
            )
            return
        if other == look.asked.text:
            raise UserError("the other text is the same: change it")
    else:
        other = str(look.run.config["other"])
    found = look.compared(other)
    _compared(look, found._replace(target=spelled(found.target)), other)


def _compared(look: Look, found: Compared, other: str) -> None:
    at = look.position if isinstance(look, Live) else int(look.run.manifest["position"])
    st.caption(
        plain(
            f"Position {at} here is {found.position} there: {found.how}. {found.target} "
            f"has {found.value:.2f} logits here and {found.other_value:.2f} there."
        )
    )
    height = 38 + 35 * min(len(found.tokens), 12)
    shown_table(_side(found.tokens), "side by side", LookConfig.STUDY, height=height)
    for of in figures.OF:
        rows = found.rows[found.rows["of"] == of]
        if rows.empty:
            continue
        first = rows.iloc[0]
        charts(
            f"differing {of}",
            figures.differing(rows),
            shows=f"The {of}s whose direct contribution to {found.target} differs most "
            "between the texts."
            + (" A surprise is a large difference in an early layer, which has hardly read the "
               "changed word." if of == "part" else ""),
            found=f"{first['name']} differs most: {first['here']:+.2f} here, "
            f"{first['there']:+.2f} there."
            if first["here"] != first["there"]
            else f"No {of} differs.",
        )  # fmt: skip
    neurons = list(found.rows[found.rows["of"] == "neuron"]["name"])
    if neurons:
        chosen = st.selectbox("Go on with the neuron", neurons, key="prompt differing")
        carry_on(str(chosen), look.model, f"differing {chosen}")
    command, call = look.call(other=other)
    offer(
        found.rows, "differences", command, f"{call}run.table('differences')", of=LookConfig.STUDY
    )


def _side(tokens: pd.DataFrame) -> pd.DataFrame:
    """Both texts' tokens; where one has none its cells have nothing."""
    shown = pd.DataFrame()
    for before, there in (("", ""), ("other_", " there")):
        at = tokens[f"{before}position"].astype("Int64")
        shown[f"position{there}"] = at.mask(at < 0)
        names = zip(tokens[f"{before}token"], at, strict=True)
        shown[f"token{there}"] = [visible(token) if n >= 0 else None for token, n in names]
        shown[f"probability{there}"] = tokens[f"{before}probability"]
        if not before:
            shown["same"] = tokens["equal"]
    return shown


def _table(rows: pd.DataFrame, columns: list[str]) -> None:
    shown_table(rows[columns], "strongest", LookConfig.STUDY)


def _words(row: pd.Series) -> str:
    """The tokens of one neuron or head, in a sentence."""
    sides = [
        f"{side} " + ", ".join(visible(token) for token in list(row[side])[:5])
        for side in ("raises", "lowers")
        if side in row and len(row[side])
    ]
    return f"It {' and '.join(sides)}." if sides else ""

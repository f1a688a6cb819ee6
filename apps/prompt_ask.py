"""What the prompt page shows of: a text in a model that is open, or a stored look."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import pandas as pd
import streamlit as st

from interp.apps import pool
from interp.apps.answers import remembered
from interp.apps.common import table
from interp.apps.offering import study_call
from interp.microscope.figures import of_position
from interp.microscope.look import LookConfig, look_with
from interp.microscope.names import Compared, Explained, Question
from interp.microscope.pair import place_of, side_by_side
from interp.runs.store import Run, Store

if TYPE_CHECKING:
    from interp.microscope.passed import Opened

T = TypeVar("T")
SHOWN = 10
"""Tokens of a distribution."""


@dataclass(frozen=True)
class Live:
    """A question to a model in the server's memory; answers are remembered by its content."""

    model: str
    content: pool.Key
    asked: Question

    @classmethod
    def of(cls, model: str, text: str) -> Live:
        return cls(model, pool.content(model), Question(text))

    def about(self, **changes: object) -> Live:
        """With another position or target."""
        return replace(self, asked=self.asked._replace(**changes))  # type: ignore[arg-type]

    def answer(self, what: tuple[str, ...], make: Callable[[Opened], T]) -> T:
        """What a function makes of the open model."""

        def made() -> T:
            from interp.microscope.passed import Opened

            with pool.borrowed(self.model) as subject, st.spinner("running …"):
                return make(Opened.of(subject))

        return remembered(("prompt", *what, *self.content, *self.asked), made)

    @property
    def position(self) -> int:
        return self.asked.position

    @property
    def tokens(self) -> pd.DataFrame:
        """As `tokens.token_table`, whatever the position."""

        def made(opened: Opened) -> pd.DataFrame:
            from interp.microscope.tokens import token_table

            return token_table(opened.passed(self.asked.text), SHOWN)

        whole = self.about(position=-1, target="", against="", alone=False)
        return whole.answer(("tokens",), made)

    def explained(self) -> Explained:
        """The parts, heads and neurons of the logit that is asked for."""
        store = Store()

        def made(opened: Opened) -> Explained:
            from interp.microscope.live import explained
            from interp.microscope.words import atlas_of

            return explained(opened, self.asked, atlas_of(opened, store))

        return self.answer(("explained", str(store.root)), made)

    def compared(self, other: str) -> Compared:
        """The same logit in another text."""

        def made(opened: Opened) -> Compared:
            from interp.microscope.live import compared

            return compared(opened, self.asked, other)

        return self.answer(("compared", other), made)

    def call(self, **more: str) -> tuple[list[str], str]:
        """The command and the notebook call that answer it."""
        return study_call(LookConfig.STUDY, self.asked.config(self.model, **more))

    def keep(self, **more: str) -> Run:
        """Its run, made with the open model."""
        from interp.microscope.passed import Opened

        config = LookConfig(**self.asked.config(self.model, **more))
        with pool.borrowed(self.model) as subject, st.spinner("storing every position …"):
            return look_with(config, Opened.of(subject), Store())


@dataclass(frozen=True)
class Stored:
    """A run of the study, at one of its positions; no model."""

    run: Run
    position: int

    @property
    def model(self) -> str:
        return str(self.run.config["model"])

    @property
    def tokens(self) -> pd.DataFrame:
        return table(self.run, "tokens")

    def explained(self) -> Explained:
        """As the run has it."""
        value = of_position(table(self.run, "values"), self.position).iloc[0]
        rows = [of_position(table(self.run, name), self.position) for name in PARTS]
        return Explained(str(value["target"]), float(value["value"]), *rows)

    def compared(self, other: str) -> Compared:
        """With the run's other text, at its own position."""
        metrics, own = self.run.metrics, self.tokens
        others = table(self.run, "other_tokens")
        at = int(self.run.manifest["position"])
        place = place_of(list(own["id"]), list(others["id"]), at)
        values = (float(metrics["value"]), float(metrics["value in the other text"]))
        rows = table(self.run, "differences")
        return Compared(str(metrics["explained"]), *values, *place, rows, side_by_side(own, others))

    def call(self, **more: str) -> tuple[list[str], str]:
        """What made the run."""
        return study_call(LookConfig.STUDY, self.run.config | more)


PARTS = ("parts", "heads", "neurons")
Look = Live | Stored

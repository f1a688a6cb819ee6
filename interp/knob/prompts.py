"""The paper's prompts: a context, an instruction (or a weight, or nothing), and a query.

    system: Answer the following query considering the provided context. Answer with only one word.
    user:   Context: {c}
            Instruction: Ignore the context in answering the query.      (intent: prior)
            Query: {q}

Formats: "instruction" as above, "float" with `Context weight: 0.00` (or 1.00) in the instruction's
place, "none" without that line. Demonstrations go before the query, in the chat template as earlier
turns, in the plain one (for models without chat) as earlier blocks that end in `Answer: {a}`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

from ..errors import UserError
from .items import Item

Intent = Literal["prior", "context"]
Format = Literal["instruction", "float", "none"]
Template = Literal["chat", "plain"]
INTENTS: tuple[Intent, Intent] = ("prior", "context")
SYSTEM = "Answer the following query considering the provided context. Answer with only one word."
_INSTRUCTION = {
    "prior": "Ignore the context in answering the query.",
    "context": "Only consider the context in answering the query.",
}
_WEIGHT = {"prior": 0.0, "context": 1.0}


class Row(NamedTuple):
    """An item with an intent: one prompt and its right answer."""

    item: Item
    intent: Intent

    @property
    def answer(self) -> str:
        return self.item.told if self.intent == "context" else self.item.prior

    @property
    def other(self) -> str:
        """The answer under the other intent."""
        return self.item.prior if self.intent == "context" else self.item.told


def rows_of(items: Sequence[Item]) -> list[Row]:
    """Two rows an item, one for each intent, side by side."""
    return [Row(item, intent) for item in items for intent in INTENTS]


def question(row: Row, form: Format) -> str:
    """The user's message."""
    if form not in get_args(Format):
        raise UserError(f"no format '{form}': choose one of {', '.join(get_args(Format))}")
    lines = [f"Context: {row.item.context}"]
    if form == "instruction":
        lines.append(f"Instruction: {_INSTRUCTION[row.intent]}")
    elif form == "float":
        lines.append(f"Context weight: {_WEIGHT[row.intent]:.2f}")
    return "\n".join([*lines, f"Query: {row.item.query}"])


class Prompter:
    """Makes prompts for a tokenizer: a format, a template, and demonstrations in front."""

    def __init__(
        self,
        tokenizer: Any,
        form: Format = "instruction",
        shots: Sequence[Row] = (),
        template: Template = "chat",
    ) -> None:
        if template == "chat" and not getattr(tokenizer, "chat_template", None):
            raise UserError("this model has no chat template: use --template plain")
        self.tokenizer, self.form, self.template = tokenizer, form, template
        self._shots = list(shots)

    def prompt(self, row: Row) -> str:
        """The text up to where the answer begins."""
        if self.template == "plain":
            blocks = [f"{question(r, self.form)}\nAnswer: {r.answer}\n\n" for r in self._shots]
            return "".join([SYSTEM, "\n\n", *blocks, question(row, self.form), "\nAnswer:"])
        messages = [{"role": "system", "content": SYSTEM}]
        for shot in self._shots:
            messages.append({"role": "user", "content": question(shot, self.form)})
            messages.append({"role": "assistant", "content": shot.answer})
        messages.append({"role": "user", "content": question(row, self.form)})
        text: str = self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        return text

    def ids(self, row: Row) -> list[int]:
        found: list[int] = self.tokenizer.encode(self.prompt(row), add_special_tokens=False)
        return found

    def answer_ids(self, answer: str) -> list[int]:
        """An answer as it is written after the prompt: the tokens of a completion, its end left
        out."""
        text = answer if self.template == "chat" else f" {answer}"
        found: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return found

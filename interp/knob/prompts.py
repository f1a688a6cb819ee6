"""The paper's prompts: a context, an instruction (or a weight, or nothing), and a query.

    system: Answer the following query considering the provided context. Answer with only one word.
    user:   Context: {c}
            Instruction: Ignore the context in answering the query.      (intent: prior)
            Query: {q}

Formats: "instruction" as above; "float" has `Context weight: 0.00` (or 1.00) in the instruction's
place; "none" leaves that line out. Demonstrations stand before the query: in the chat template they
are earlier turns, in the plain one (for models without chat) blocks that end in `Answer: {a}`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal, NamedTuple

from ..errors import UserError
from ..model.prompting import Prompting
from .items import Item

Intent = Literal["prior", "context"]
Format = Literal["instruction", "float", "none"]
Template = Literal["chat", "plain"]
INTENTS: tuple[Intent, Intent] = ("prior", "context")
SYSTEM = "Answer the following query considering the provided context. Answer with only one word."
_INTENT_LINES: dict[tuple[Format, Intent], str] = {
    ("instruction", "prior"): "Instruction: Ignore the context in answering the query.",
    ("instruction", "context"): "Instruction: Only consider the context in answering the query.",
    ("float", "prior"): "Context weight: 0.00",
    ("float", "context"): "Context weight: 1.00",
}


class Row(NamedTuple):
    """An item with an intent: one prompt and its right answer."""

    item: Item
    intent: Intent

    @property
    def answer(self) -> str:
        return self.item.context_answer if self.intent == "context" else self.item.prior_answer

    @property
    def other(self) -> str:
        """The answer under the other intent."""
        return self.item.prior_answer if self.intent == "context" else self.item.context_answer


def rows_of(items: Sequence[Item]) -> list[Row]:
    """Two rows an item, one for each intent, side by side."""
    return [Row(item, intent) for item in items for intent in INTENTS]


def demonstrations(items: Sequence[Item], count: int, seed: int = 0) -> list[Row]:
    """`count` rows of different keys and alternating intents, to put in front of a prompt."""
    by_key = {item.key: item for item in items}
    if len(by_key) < count:
        raise UserError(
            f"{count} demonstrations need as many facts to train on; there are {len(by_key)}: give "
            f"more, or --settings without '{count}-shot'"
        )
    keys = random.Random(f"{seed}/shots").sample(sorted(by_key), count)
    return [Row(by_key[key], INTENTS[(i + 1) % 2]) for i, key in enumerate(keys)]


def question(row: Row, form: Format) -> str:
    """The user's message."""
    intent = [] if form == "none" else [_INTENT_LINES[form, row.intent]]
    return "\n".join([f"Context: {row.item.context}", *intent, f"Query: {row.item.query}"])


class Prompter:
    """Writes prompts for a model, in one format and template, behind demonstrations."""

    def __init__(
        self,
        prompting: Prompting,
        form: Format = "instruction",
        shots: Sequence[Row] = (),
        template: Template = "chat",
    ) -> None:
        self.prompting, self.form, self.template = prompting, form, template
        self._shots = list(shots)

    def prompt(self, row: Row) -> str:
        """The text up to where the answer begins."""
        if self.template == "plain":
            blocks = [f"{question(r, self.form)}\nAnswer: {r.answer}\n\n" for r in self._shots]
            return "".join([SYSTEM, "\n\n", *blocks, question(row, self.form), "\nAnswer:"])
        turns = [("system", SYSTEM)]
        for shot in self._shots:
            turns += [("user", question(shot, self.form)), ("assistant", shot.answer)]
        turns.append(("user", question(row, self.form)))
        messages = [{"role": role, "content": content} for role, content in turns]
        return self.prompting.chat_text(messages)

    def ids(self, row: Row) -> list[int]:
        """The prompt's tokens."""
        text = self.prompt(row)
        chat = self.template == "chat"
        return self.prompting.templated(text) if chat else self.prompting.ids(text)

    def answer_ids(self, answer: str) -> list[int]:
        """The answer's tokens as they follow the prompt, without the end token."""
        text = answer if self.template == "chat" else f" {answer}"
        return self.prompting.plain(text)

    def first_token(self, answer: str) -> int:
        return self.answer_ids(answer)[0]

    def first_tokens(self, item: Item) -> tuple[int, int]:
        """First tokens of the context's and of the prior answer."""
        return self.first_token(item.context_answer), self.first_token(item.prior_answer)

    def first_tokens_differ(self, item: Item) -> bool:
        return len(set(self.first_tokens(item))) == 2

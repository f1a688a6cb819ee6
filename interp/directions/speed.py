"""What reading a stream and steering cost beside plain transformers."""

from __future__ import annotations

from itertools import islice

import torch

from ..model.bare import first_layers, whole_model
from ..model.edits import add
from ..model.site import Site
from ..model.subject import Subject, open_subject
from ..text.corpus import read_corpus, token_rows
from ..text.stream import stream
from ..timing import Pair

ROWS, LENGTH, NEW = 8, 128, 24


def pairs(model: str) -> list[Pair]:
    """For `interp bench all`."""
    subject = open_subject(model)
    return [reading(subject, model), steering(subject, model)]


def reading(subject: Subject, model: str) -> Pair:
    """The stream in the middle of a model, of a batch of the default corpus."""
    layer = subject.spec.n_layers // 2
    length = subject.at_most(LENGTH)
    found = token_rows(read_corpus(None), subject.prompting, length, ROWS * length)
    rows = list(islice(found, ROWS))
    ids = torch.tensor(rows, device=subject.device)
    truncated = first_layers(model, layer + 1, subject.device)

    def ours() -> None:
        for _ in stream(subject, rows, [f"{layer}.resid_post"], ROWS):
            pass

    @torch.no_grad()
    def bare() -> None:
        truncated(input_ids=ids)

    what, against = "reading a stream", "the bare forward pass to the same layer"
    return Pair(what, against, "directions", ours, bare)


def steering(subject: Subject, model: str) -> Pair:
    """New tokens with a vector added; it is zero, so that both sides say the same."""
    ids = subject.tokens("The most popular pet in the world is").ids
    site = Site("resid_post", subject.spec.n_layers // 2)
    edit = add(site, torch.zeros(subject.spec.d_model, device=subject.device))
    plain = whole_model(model, subject.device)

    def ours() -> None:
        with subject.edited(edit):
            subject.generate(ids, NEW)

    def bare() -> None:
        plain.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW, do_sample=False
        )

    against = "transformers' generate, not steered"
    return Pair(f"{NEW} new tokens, steered", against, "directions", ours, bare)

"""What a model says under edits by an SAE's latents (`saes.edits`): before, and after each.

One row is

    with subject.edited(edit):
        subject.logits(batch), subject.generate(batch)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from ..directions.inspect import next_logprobs, says
from ..errors import UserError
from ..model.batch import Batch
from ..model.edits import Edit
from ..model.prompting import Bos
from ..model.site import Site
from ..model.subject import Subject, open_subject
from ..progress import progress

if TYPE_CHECKING:
    from ..saes import Sae

PLAIN = "as it is"
"""The row of the model that nothing is done to."""


class Acting(NamedTuple):
    """An SAE, the model whose activations it reads, and a prompt."""

    sae: Sae
    subject: Subject
    batch: Batch


def open_acting(
    source: str,
    latents: Sequence[int],
    prompt: str,
    chat: bool = True,
    model: str = "",
    site: str = "",
    bos: Bos = "auto",
    anyway: bool = False,
) -> Acting:
    """An SAE by its source, with its model and a prompt.

    Args:
        latents: those that it is to be acted by, if any.
        chat: put the prompt into the model's chat template.
        model: by default what the SAE names.
        site: the site it reads, for an SAE that does not say it.
        bos: by default as the SAE says that it was trained.
        anyway: take an SAE that names another model.

    Raises:
        UserError: as `open_sae`, `check_acts`, `check_latents`; an SAE that names no model, or
            another one.
    """
    from ..model.catalog import resolve
    from ..model.vocabulary import check_chat_template
    from ..saes import open_sae
    from ..saes.edits import check_latents

    if not prompt.strip():
        raise UserError("the prompt is empty: give --prompt some text")
    sae = open_sae(source, site=site, model="" if anyway else model)
    named = acting_model(sae, source, model, anyway)
    check_latents(sae, latents)
    if chat:  # before the model: a mistake should not cost its loading
        check_chat_template(resolve(named), named, "--no-chat")
    subject = open_subject(named, bos=sae.bos if bos == "auto" else bos)
    return Acting(sae, subject, prompted(subject, prompt, chat))


def acting_model(sae: Sae, source: str, model: str = "", anyway: bool = False) -> str:
    """The model that an SAE acts in.

    Raises:
        UserError: as `open_acting`.
    """
    from ..saes.edits import check_acts

    check_acts(sae, source)
    named = model or sae.model
    if not named:
        raise UserError(f"{source} does not say which model it reads: give --model")
    sae.check_model(named, source, anyway)
    return named


def prompted(subject: Subject, prompt: str, chat: bool) -> Batch:
    """A prompt as the model gets it."""
    message = {"role": "user", "content": prompt}
    return subject.chat([message]) if chat else subject.tokens(prompt)


def acted(
    acting: Acting, edits: Mapping[str, Edit], tokens: int = 24, latent: int | None = None
) -> pd.DataFrame:
    """What the model says as it is and under each edit, one row each.

    Columns: `edit` (its name), `encoded` (`latent` at the last token, as the encoder reads the
    edited stream; NaN without one), and those of `directions.inspect.says`.
    """
    sae, subject, batch = acting
    plain, site, made = next_logprobs(subject, batch), Site.parse(sae.site), []
    with progress("act", len(edits) + 1, "texts") as advance:
        for name, edit in {PLAIN: None, **edits}.items():
            with subject.edited(*([edit] if edit else [])):
                encoded = math.nan
                if latent is not None:
                    x = subject.capture(batch, [site])[site][:1, -1:]
                    encoded = float(sae.encode(x).flatten()[latent])
                said = says(subject, batch, plain, tokens)
            made.append({"edit": name, "encoded": encoded, **said})
            advance(1, name)
    return pd.DataFrame(made)

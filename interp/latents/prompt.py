"""Which latents of a surveyed SAE fire on a text: this needs the model, and the SAE itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import UserError
from ..model.site import Site
from ..model.subject import Subject, open_subject
from ..runs.store import Run
from .survey import SurveyConfig

if TYPE_CHECKING:
    from ..saes import Sae


def surveyed_sae(survey: Run) -> Sae:
    """The SAE that a survey is of.

    Raises:
        UserError: it is gone, or another one by now.
    """
    from ..saes.open import saes_fingerprint

    config = survey_config(survey)
    if saes_fingerprint(config.source) != survey.manifest["fingerprints"]["saes"]:
        raise UserError(
            f"the SAE in {config.source} is not the one that was surveyed: make the survey anew"
        )
    return next(iter(config.opened().by_name.values()))


def surveyed_subject(survey: Run, device: str = "cpu") -> Subject:
    """The model that a survey is of, fed as the survey fed it.

    Raises:
        UserError: it cannot be opened, or is another one by now.
    """
    config = checked_config(survey)
    return open_subject(config.model, device=device, bos=config.feeding)


def checked_config(survey: Run) -> SurveyConfig:
    """What a survey was made with.

    Raises:
        UserError: its model is another one by now.
    """
    config = survey_config(survey)
    if config.stored_weights.fingerprint() != survey.manifest["fingerprints"]["model"]:
        raise UserError(f"{config.model} is not the model that was surveyed: make the survey anew")
    return config


def survey_config(survey: Run) -> SurveyConfig:
    """What a stored survey was made with."""
    return SurveyConfig(**survey.config)


def strongest(survey: Run, subject: Subject, sae: Sae, text: str, k: int = 5) -> pd.DataFrame:
    """The k largest latents at each token of a text. What the survey leaves out counts here as
    little: the first tokens, special ones, massive activations.

    Returns:
        One row a token and latent, in the order of the text, the largest first: `position`,
        `token`, `latent`, `value`. A token on which none fires has no row.

    Raises:
        UserError: an empty text, or too long a one.
    """
    ids, z = _latents(survey, subject, sae, text)
    sizes, made = z.abs(), []
    for position, token in enumerate(ids):
        best = sizes[position].topk(min(k, sizes.shape[1]))
        for latent in best.indices[best.values > 0].tolist():
            value = float(z[position, latent])
            row = {"position": position, "token": subject.text(token[None])}
            made.append({**row, "latent": latent, "value": value})
    return pd.DataFrame(made, columns=["position", "token", "latent", "value"])


def firing(survey: Run, subject: Subject, sae: Sae, text: str, limit: int = 20) -> pd.DataFrame:
    """The latents that fire on a text, the largest first: `latent`, `value` (its largest), `token`,
    `position` (where that is) and `tokens` (on how many it fires).

    Raises:
        UserError: as `strongest`.
    """
    ids, z = _latents(survey, subject, sae, text)
    best = z.abs().max(0)
    order = best.values.sort(descending=True, stable=True).indices[:limit]
    made = []
    for latent in order[best.values[order] > 0].tolist():
        at = int(best.indices[latent])
        about = {"latent": latent, "value": float(z[at, latent])}
        shown = {"token": subject.text(ids[at][None]), "position": at}
        made.append({**about, **shown, "tokens": int((z[:, latent] != 0).sum())})
    columns = ["latent", "value", "token", "position", "tokens"]
    return pd.DataFrame(made, columns=columns)


def _latents(
    survey: Run, subject: Subject, sae: Sae, text: str
) -> tuple[Int[Tensor, " pos"], Float[Tensor, "pos d_sae"]]:
    """A text's ids and its latents, zero where a token does not count."""
    config, batch = survey_config(survey), subject.tokens(text)
    site = Site.parse(survey.manifest["site"])
    x = subject.capture(batch, [site])[site][0].flatten(1).float().cpu()
    z = sae.encode(x)
    counts = subject.counted(batch, sae.no_data(subject.prompting))[0].cpu()
    inside = torch.zeros_like(counts)
    inside[[at for at in sae.positions(len(counts)) if at >= config.skip]] = True
    short = x.norm(dim=1) <= (config.longest * survey.manifest["median_length"] or torch.inf)
    z[~(counts & inside & short)] = 0
    return batch.ids[0], z

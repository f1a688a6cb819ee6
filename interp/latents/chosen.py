"""The latents whose effects are read: their words, and which others are like them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ..errors import UserError
from . import search

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from ..model.weights import Weights
    from ..runs.store import Run
    from ..saes import Sae

LIKE = 10
"""The controls are drawn from so many times as many latents, those most like it."""


class Settings(Protocol):
    """What is asked for: a config of `effects`."""

    @property
    def stored_weights(self) -> Weights: ...

    @property
    def survey(self) -> Run | None: ...

    @property
    def latents(self) -> tuple[int, ...]: ...

    @property
    def words(self) -> tuple[str, ...]: ...

    @property
    def sample(self) -> int: ...

    @property
    def k(self) -> int: ...

    @property
    def controls(self) -> int: ...

    @property
    def seed(self) -> int: ...


class Chosen(NamedTuple):
    """A latent whose effects are read."""

    latent: int
    ids: tuple[int, ...]
    """Its words."""
    acts: tuple[tuple[int, float], ...]
    """What is clamped, the latent itself and its controls, each with the length of its row."""


class Rows:
    """The latents whose effects are read, their words, and which others are like them."""

    def __init__(self, config: Settings, sae: Sae) -> None:
        import numpy as np

        self._config = config
        self.lengths: np.ndarray = sae.W_dec.double().norm(dim=1).cpu().numpy()
        live = self.lengths > 0
        self._alike = self.lengths
        self._density: np.ndarray | None = None
        if config.survey:
            self._density = search.densities(config.survey)["density"].to_numpy(float)
            live &= self._density > 0
            self._alike = np.log(np.where(live, self._density, 1.0))
        self._live = live.nonzero()[0]
        if config.controls >= len(self._live):
            raise UserError(f"only {len(self._live)} latents are live: give fewer --controls")
        self.chosen, self._words = self._choose()
        if silent := [j for j in self.chosen if not self.lengths[j] > 0]:
            raise UserError(f"latent {silent[0]} writes nothing: its row is 0")
        self._top(sae.W_dec[self.chosen])

    def _choose(self) -> tuple[list[int], list[str]]:
        """Latents, and the word that each is chosen for."""
        import numpy as np

        config = self._config
        if config.survey and config.words:
            ranked = [search.by_word(config.survey, word, limit=1) for word in config.words]
            found = [int(rows["latent"].iloc[0]) for rows in ranked]
            if len(set(found)) < len(found):
                raise UserError("two of the --words have the same latent: give one of them")
            return found, list(config.words)
        if config.latents:
            return list(config.latents), [""] * len(config.latents)
        count = min(config.sample, len(self._live))
        drawn = np.random.default_rng(config.seed).choice(self._live, count, replace=False)
        return [int(j) for j in np.sort(drawn)], [""] * count

    def _top(self, vectors: Tensor) -> None:
        """Their top tokens through the LM head."""
        from ..model.readout import open_readout
        from ..model.vocabulary import token_strings

        weights = self._config.stored_weights
        found = open_readout(weights).decode(vectors.float().cpu(), self._config.k)
        self.ids: list[list[int]] = found.top.ids.tolist()
        strings = token_strings(weights.folder, weights.spec.d_vocab)
        self._strings = [[strings[i] for i in ids] for ids in self.ids]

    def swept(self, i: int) -> Chosen:
        """What is clamped for the i-th."""
        latent = self.chosen[i]
        acts = tuple((j, float(self.lengths[j])) for j in (latent, *self.controls(i)))
        return Chosen(latent, tuple(self.ids[i]), acts)

    def controls(self, i: int) -> list[int]:
        """Other latents, drawn from those most like the i-th."""
        import numpy as np

        config, own = self._config, self.chosen[i]
        drawn = np.random.default_rng([config.seed, own])
        others = drawn.permutation(self._live[self._live != own])
        apart = np.abs(self._alike[others] - self._alike[own])
        like = others[np.argsort(apart, kind="stable")][: LIKE * config.controls]
        return [int(j) for j in drawn.choice(like, config.controls, replace=False)]

    def about(self, i: int) -> dict[str, Any]:
        """The first columns of its row in `effects/latents`."""
        latent = self.chosen[i]
        return {
            "latent": latent,
            "word": self._words[i],
            "words": self._strings[i],
            "ids": self.ids[i],
            "density": None if self._density is None else float(self._density[latent]),
            "length": float(self.lengths[latent]),
        }

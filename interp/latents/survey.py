"""Every latent of an SAE over a corpus, in one pass: how often, how strongly and where it fires.

Naive equivalent, over the activations x [tokens, d] of the whole corpus at the SAE's site:

    z = encode(x);  (z != 0).mean(0);  z.max(0);  histogram of each column;  z.topk(k, dim=0)

but with the memory of one step, `tallies.bytes_a_latent` here and again in each worker (4.3 kB with
12 top examples: 4.3 GB for a million latents, beside the SAE's own weights), and 4 bytes a token
for the corpus's ids. The corpus is read in parts of some contexts (`survey_part.py`), by as many
workers as there are; their tallies are merged in the corpus's order. BOS, special tokens and
positions count as the SAE says of its training (`Sae.bos`, `no_data`, `positions`); massive
activations are left out as in `darkmatter run`.

Tables of the run; sizes are |z|:

`latents/00000.parquet` …, CHUNK latents a file, one row a latent:
    latent int32, count int64 (tokens that it fires on), density double (of the tokens that count)
    mean, max double     of the sizes where it fires; null for one that never does
    histogram list<int32>[32]   counts by size; the manifest's `edges` lie between the bins, the
                         outer bins have no outer edge. Half octaves about the median size of the
                         first step
    fires_on list<int32>, fires_times list<int32>   token ids and how often it fires on each, the
                         most frequent first: at most 32, a Misra-Gries sketch (`FiringTokens`)
    short int64          0: these counts are exact and complete. Else each may be too small by so
                         many, and a token that is not named has at most as many
    top_ids, bottom_ids list<int32>, top_logits, bottom_logits list<float>, top_z, bottom_z float
                         its decoder row through the LM head, as `Directions.decode`; null where the
                         site is not as wide as the residual stream
    neighbours list<int32>, neighbour_cosines list<float>   nearest other decoder rows
    coactive list<int32>, coactive_times list<int32>   of its top examples: which other latents are
                         among the 8 largest at the same token, and in how many of the examples
    neurons list<string>, neuron_cosines list<float>   MLP neurons whose write vectors are nearest,
                         by the absolute cosine; null as top_ids
`examples/00000.parquet` …, one row an example, of the same latents:
    latent int32, kind string (top: the largest, at most one a context; bin: one drawn at random
    from each bin of the histogram), rank int16 (the place among top; the bin), value float
    context, position, document int32, start int32 (the position of the window's first token)
    ids list<int32>, values list<float>   the window's tokens, and the latent's activations there,
                         to bfloat16's 3 digits; NaN where a token does not count
`vocabulary/tokens.parquet`: id int32, token, word string (its word family)
`contexts.safetensors`: ids [contexts, length] int32, lengths, document [contexts] int32
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..errors import UserError
from ..progress import log
from ..runs.checkpoint import Checkpoint
from ..runs.study import PartedStudy
from ..runs.study_task import StudyTask
from ..runs.writer import RunWriter
from ..saes.study import LADDER, SaesStudy

if TYPE_CHECKING:
    from ..saes import Sae
    from ..saes.open import Saes
    from .gather import SurveyPass
    from .survey_part import PartReader

SHIPPED = LADDER / "saes" / "w3072-k32"
DENSE_FROM = 0.1
"""A latent that fires on more than this share of the tokens counts as dense."""


@dataclass(frozen=True)
class SurveyConfig(SaesStudy, PartedStudy):
    """Survey every latent of an SAE over a corpus: density, examples, tokens, neighbours."""

    STUDY: ClassVar[str] = "saes.survey"
    VERSION: ClassVar[int] = 2

    saes: str = ""
    """A folder of one SAE, or sae-lens' release:sae_id; by default the widest that ships."""
    tokens: int = 100_000
    """Tokens to read."""
    top: int = 12
    """The number of largest activations to keep of each latent."""
    k: int = 10
    """The number of top and bottom tokens through the LM head."""
    norm: Literal["raw", "final"] = "raw"
    """Whether the final norm's gain multiplies the decoder rows before the LM head."""
    neighbours: int = 8
    """The number of nearest decoder rows to keep (0: none)."""
    neurons: int = 5
    """The number of nearest neurons to keep (0: none)."""
    seed: int = 0
    """Seed of the examples that are drawn from the bins."""

    @property
    def source(self) -> str:
        return self.saes or str(SHIPPED)

    @property
    def contexts(self) -> int:
        return self.tokens // self.length

    def check(self) -> None:
        super().check()
        assert self.spread
        if self.contexts < 1:
            raise UserError(
                f"--tokens {self.tokens} are no context of {self.length}: give more, or a shorter "
                "--length"
            )
        for name in ("top", "k"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} must be at least 1, not {getattr(self, name)}")
        for name in ("neighbours", "neurons"):
            if getattr(self, name) < 0:
                raise UserError(f"--{name} must be 0 or more, not {getattr(self, name)}")

    def opened(self, pursued: bool = False) -> Saes:
        """The one SAE, as the only one of its site.

        Raises:
            UserError: as `open_saes`; a source of several.
        """
        saes = super().opened(pursued)
        if len(saes.by_name) > 1:
            raise UserError(
                f"{self.source} holds several SAEs: give the folder of {' or '.join(saes.by_name)}"
            )
        return saes

    def run(self, out: RunWriter) -> dict[str, Any]:
        from .finish import Finish
        from .tallies import bytes_a_latent

        gathered = self._read(out)
        saes = self.opened()
        sae: Sae = next(iter(saes.by_name.values()))
        Finish(self, gathered, sae).write(out)
        out.facts |= gathered.facts | saes.facts
        out.facts |= {
            "sae": next(iter(saes.by_name)),
            "site": str(saes.site),
            "latents": sae.d_sae,
            "edges": gathered.edges,
            "left_out": gathered.left_out,
            "median_length": gathered.median,
            "documents": len(gathered.documents),
            "bytes_a_latent": bytes_a_latent(self.top),
            "dense_from": DENSE_FROM,
            "seconds": {name: round(value, 2) for name, value in gathered.seconds.items()},
        }
        density = gathered.tallies.numbers.count / gathered.counted
        return {
            "tokens": gathered.counted,
            "latents": sae.d_sae,
            "dead": int((density == 0).sum()),
            "dense": int((density > DENSE_FROM).sum()),
            "l0": round(float(density.sum()), 2),
        }

    def _read(self, out: RunWriter) -> SurveyPass:
        """The tallies of the whole corpus. The workers open SAEs of their own: none is held here
        beside them."""
        from .gather import SurveyPass
        from .tallies import bytes_a_latent

        saes = self.opened()
        n, each = next(iter(saes.by_name.values())).d_sae, bytes_a_latent(self.top)
        label = f"latents at {saes.site}"
        del saes
        log.info("%s latents, %s bytes each: %.2f GB", f"{n:,}", f"{each:,}", n * each / 1e9)
        gathered = SurveyPass(self, n)
        gathered.read(_Parts.of(self), label, Checkpoint(out, "survey"))
        return gathered


class _Parts(StudyTask[SurveyConfig]):
    """Makes the parts of a survey, as `SurveyPass.read` takes them."""

    def opened(self) -> PartReader:
        from .survey_part import PartReader

        own = self.config
        saes = own.opened()
        stream = own.stream(own.open_here(), saes)
        return PartReader(stream, next(iter(saes.by_name.values())), own)

    def made(self, opened: PartReader, part: int) -> tuple[bytes, dict[str, Any]]:
        from safetensors.torch import save

        tallies, note = opened.read(part)
        packed = {name: x.contiguous() for name, x in tallies.packed().items()}
        return save(packed), note | {"facts": self.config.facts_of(opened.stream.subject)}

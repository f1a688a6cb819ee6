"""The kernels' benchmark as a study: ratios with their spread, kept as a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from .errors import UserError
from .progress import progress
from .store import RunWriter


@dataclass(frozen=True)
class KernelBenchConfig:
    """Time the fused projection against the bare matrix product and the naive torch version."""

    STUDY: ClassVar[str] = "bench.kernels"
    VERSION: ClassVar[int] = 1

    d: int = 576
    """Width of the vectors (SmolLM2-135M's by default)."""
    vocabulary: int = 49152
    """Rows of the read-out."""
    rows: int = 4096
    """Vectors per repeat."""
    k: int = 16
    """Tokens kept per side."""
    repeats: int = 9
    """Timed repeats of each variant, interleaved."""

    def fingerprints(self) -> dict[str, str]:
        return {}

    def check(self) -> None:
        if min(self.d, self.rows, self.k, self.repeats) < 1 or self.vocabulary < self.k:
            raise UserError("sizes and repeats must be positive, and the vocabulary at least k")

    def run(self, out: RunWriter) -> dict[str, Any]:
        """Tables: `times/seconds.parquet`, one row a repeat, seconds per variant."""
        import pandas as pd
        import torch

        from interp.kernels.bench import interleaved

        with progress("bench kernels", self.repeats + 1, "repeats") as advance:
            times = interleaved(
                self.d, self.vocabulary, self.rows, self.k, self.repeats, lambda: advance(1)
            )
        table = pd.DataFrame(times)
        with out.part("times/seconds.parquet") as path:
            table.to_parquet(path)
        out.facts = {"device": "cpu", "threads": torch.get_num_threads()}
        baseline = "mm" if table["mm"].median() <= table["mm_workers"].median() else "mm_workers"
        bare, fused = table[baseline], table["tiled"]
        flops = 2.0 * self.rows * self.d * self.vocabulary
        return {
            "baseline": baseline,
            **_spread("fp32_ratio", fused / bare),
            **_spread("naive_ratio", table["naive"] / fused),
            "bare_gflops": round(flops / bare.median() / 1e9, 1),
        }


def _spread(name: str, ratios: Any) -> dict[str, float]:
    """Median, smallest and largest of per-repeat ratios."""
    return {
        name: round(float(ratios.median()), 4),
        f"{name}_min": round(float(ratios.min()), 4),
        f"{name}_max": round(float(ratios.max()), 4),
    }

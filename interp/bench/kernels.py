"""The kernels' benchmark as a study: times as ratios with their spread, exactness, errors.

Every variant (`kernels/bench.py` lists them) runs over the same data, interleaved in one process.
Ratios are to the bare float32 product over the kernel's own tiles, by torch's threads or worker
threads, whichever is faster. The Llama shapes are measured on a part of the vocabulary and of the
vectors; `job_s` extrapolates in proportion to both, which favours no variant.

Metrics of a shape (the first shape's also stand at the top level). Each is a median over the
repeats with its `_min` and `_max`, by wall-clock time, and with `_cpu` by the processor time that
all threads of the same two variants took, which other programs disturb less. `baseline` and
`screen` name the variants that are fastest by wall-clock time:
    certified_ratio     the projection screened in the numbers that are fastest here (`screen` says
                        which: screened is bfloat16, screened8 and screened16 are int8 and int16) /
                        the bare product
    fp32_ratio          the projection in float32 / the bare product
    naive_ratio         naive torch / the fastest of the two: how many times faster we are
    certified_share     share of the rows whose ids the screen could prove

Tables of the run:
`times/seconds.parquet`: shape, variant string, repeat int64, wall_s, cpu_s double
`shapes/shapes.parquet`: shape string; d, vocabulary, rows (measured), job_vocabulary, job_rows
    int64; operations double (of the product measured: 2 n d V), bytes double (operands and results
    once), dense_bytes double (and the float32 logits, written once and read once)
`summary/variants.parquet`: shape, variant string; ratio, ratio_min, ratio_max (wall), ratio_cpu,
    job_s double (extrapolated), peak_bytes int64 (beyond the operands), missing string (why it did
    not run, or empty)
`accuracy/shares.parquet`: data, impl string; k int64; certified double (share of rows); exact bool
    (ids of both sides equal those of a float64 product)
`accuracy/errors.parquet`: data, variant, statistic string; median, largest double: absolute errors
    against float64, of naive float32 and bfloat16 torch and of both paths, also on vocabularies of
    1,000 and 100 tokens
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, get_args

from ..errors import UserError
from ..progress import progress, waiting
from ..runs.writer import RunWriter

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from interp.kernels.bench import Case
    from interp.kernels.rounding import Screened


class Shape(NamedTuple):
    """What is measured, and the whole job it is a part of."""

    d: int
    vocabulary: int
    rows: int
    job_vocabulary: int
    job_rows: int


SHAPES = {
    # a layer of three kinds of neuron; all layers
    "smollm2-135m": Shape(576, 49152, 4608, 49152, 138_240),
    # the up-projections of all layers, from here on
    "llama-3.1-8b": Shape(4096, 65536, 2048, 128_256, 458_752),
    "llama-3.1-405b": Shape(16384, 32768, 1024, 128_256, 6_709_248),
}
HEADLINES = ("certified_ratio", "fp32_ratio", "naive_ratio", "certified_share")
"""The metrics of a shape that its page shows."""
ShapeName = Literal["smollm2-135m", "llama-3.1-8b", "llama-3.1-405b"]


@dataclass(frozen=True)
class KernelBenchConfig:
    """Time the fused projection against the bare matrix product, naive torch and others."""

    STUDY: ClassVar[str] = "bench.kernels"
    VERSION: ClassVar[int] = 5
    FACTS: ClassVar[dict[str, Any]] = {
        **{"threads": int, "bandwidth_bytes_per_s": float},
        "metrics.shapes": dict[str, dict[str, float | str]],
        **dict.fromkeys((f"metrics.shapes.*.{name}" for name in HEADLINES), float),
    }

    shape: tuple[ShapeName, ...] = ("smollm2-135m", "llama-3.1-8b", "llama-3.1-405b")
    """The shapes to measure."""
    d: int = 0
    """Width of the vectors of a shape of your own, with --vocabulary; it replaces the others."""
    vocabulary: int = 0
    """Rows of the read-out to measure; 0 for the shape's own number."""
    rows: int = 0
    """Vectors to measure; 0 for the shape's own number."""
    k: int = 16
    """The number of tokens to keep on each side."""
    repeats: int = 5
    """Timed repeats of each variant; the variants take turns."""
    others: tuple[Literal["topk", "compiled", "faiss"], ...] = ("topk", "compiled", "faiss")
    """What to time beside the naive version (torch.compile takes a while to compile)."""
    model: str = ""
    """Also report exactness and errors on this model's neurons and unembedding."""
    accuracy_rows: int = 192
    """Vectors of each kind of data whose exactness and errors are checked; 0 for none."""

    def fingerprints(self) -> dict[str, str]:
        if not self.model:
            return {}
        from ..model.weights import open_weights

        return {"model": open_weights(self.model).fingerprint()}

    def check(self) -> None:
        if min(self.k, self.repeats) < 1 or min(self.rows, self.d, self.accuracy_rows) < 0:
            raise UserError("--k and --repeats must be at least 1, and no size negative")
        if self.d and not self.vocabulary:
            raise UserError("--d needs --vocabulary too")
        small = [name for name, shape in self._shapes().items() if shape.vocabulary < self.k]
        if small or not self._shapes():
            raise UserError("give at least one --shape, and --vocabulary no smaller than --k")

    def run(self, out: RunWriter) -> dict[str, Any]:
        import pandas as pd
        import torch

        from interp.kernels.bench import bandwidth

        measured = {name: self._measure(name, shape) for name, shape in self._shapes().items()}
        metrics, times, summaries = zip(*measured.values(), strict=True)
        out.table("times/seconds", pd.concat(times, ignore_index=True))
        out.table("summary/variants", pd.concat(summaries, ignore_index=True))
        out.table("shapes/shapes", _roofline(self._shapes(), self.k))
        shares, errors = self._accuracy()
        out.table("accuracy/shares", shares)
        out.table("accuracy/errors", errors)
        out.facts = {
            "device": "cpu",
            "threads": torch.get_num_threads(),
            "bandwidth_bytes_per_s": bandwidth(),
        }
        exact = {"exact": bool(shares["exact"].all())} if len(shares) else {}
        return {**metrics[0], **exact, "shapes": dict(zip(measured, metrics, strict=True))}

    def summaries(self) -> Iterator[tuple[str, str, pd.DataFrame]]:
        """Of each shape, without a run: its name, the baseline that its ratios are to, and its rows
        of `summary/variants`."""
        for name, shape in self._shapes().items():
            metrics, _, summary = self._measure(name, shape)
            yield name, metrics["baseline"], summary

    def _shapes(self) -> dict[str, Shape]:
        if self.d:
            rows = self.rows or 2048
            return {"own": Shape(self.d, self.vocabulary, rows, self.vocabulary, rows)}
        given = {"rows": self.rows, "vocabulary": self.vocabulary}
        changes = {field: size for field, size in given.items() if size}
        shapes = {name: (SHAPES[name], SHAPES[name]._replace(**changes)) for name in self.shape}
        return {
            name if cut == whole else f"{name}, {cut.rows} rows, {cut.vocabulary} tokens": cut
            for name, (whole, cut) in shapes.items()
        }

    def _measure(
        self, name: str, shape: Shape
    ) -> tuple[dict[str, Any], pd.DataFrame, pd.DataFrame]:
        import pandas as pd

        from interp.kernels.bench import Case

        case = Case(shape.d, shape.vocabulary, shape.rows, self.k, self.others)
        with waiting(f"bench {name}: each variant once, compiled where it is not yet"):
            peaks = case.warm_up()
        rows = []
        with progress(f"bench {name}", self.repeats, "repeats") as advance:
            for repeat in range(self.repeats):
                rows += case.repeat(repeat)
                advance(1, f"repeat {repeat + 1}")
        seconds = pd.DataFrame(rows)
        walls, cpus = (
            seconds.pivot(index="repeat", columns="variant", values=v) for v in ("wall_s", "cpu_s")
        )
        fastest, work = Fastest.of(walls), 2e-9 * shape.rows * shape.d * shape.vocabulary
        metrics = {
            **_certified(case, fastest.screen),
            **_ratios(walls, fastest, ""),
            **_ratios(cpus, fastest, "_cpu"),
            "baseline": fastest.baseline,
            "bare_gflops": round(work / walls[fastest.baseline].median(), 1),
        }
        ratios, cpu_ratios = (each.div(each[fastest.baseline], axis=0) for each in (walls, cpus))
        job_s = walls.median() * shape.job_rows * shape.job_vocabulary
        job_s /= shape.rows * shape.vocabulary
        summary = _summary(ratios, cpu_ratios, job_s, peaks, case.missing)
        return metrics, seconds.assign(shape=name), summary.assign(shape=name)

    def _accuracy(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        import pandas as pd

        from interp.kernels.accuracy import exactness, statistic_errors
        from interp.kernels.data import KINDS

        if not self.accuracy_rows:
            return pd.DataFrame(), pd.DataFrame()
        # every kind at SmolLM2's width and a sixth of its vocabulary, to be quick
        data = {name: make(self.accuracy_rows, 8192, 576, 0) for name, make in KINDS.items()}
        # errors of single logits average out over a vocabulary, and less over a small one
        small = {f"gaussian, {size} tokens": size for size in (1000, 100)}
        data |= {
            name: KINDS["gaussian"](self.accuracy_rows, size, 576, 0)
            for name, size in small.items()
        }
        if self.model:
            data[self.model] = _neurons(self.model, self.accuracy_rows)
        shares, errors = [], []
        with progress("exactness and errors", len(data), "kinds of data") as advance:
            for name, (x, w) in data.items():
                ks = [k for k in (1, 16, 256) if k <= len(w)]
                shares += [{"data": name, **row} for row in exactness(x, w, tuple(ks))]
                if name in ("gaussian", self.model, *small):
                    errors += [
                        {"data": name, **row} for row in statistic_errors(x, w, min(self.k, len(w)))
                    ]
                advance(1, name)
        return pd.DataFrame(shares), pd.DataFrame(errors)


def _neurons(model: str, rows: int) -> tuple[Tensor, Tensor]:
    """Neurons spread over a model's layers and kinds, and its unembedding."""
    import torch

    from ..model.weights import open_weights

    weights = open_weights(model)
    kinds, layers = weights.spec.kinds, range(0, weights.spec.n_layers, 4)
    vectors = torch.cat(
        [
            weights.neurons(kind, layer, weights.banks(layer)[0].expert)  # type: ignore[arg-type]
            for layer in layers
            for kind in kinds
        ]
    )
    every = len(vectors) // rows or 1
    return vectors[::every][:rows].float().contiguous(), weights.W_U().float()


class Fastest(NamedTuple):
    """The variants that ratios are of, chosen once: those of the processor's time are of the same
    ones."""

    baseline: str
    """Of the bare float32 products."""
    screen: Screened | None
    fused: str
    """Of float32 and the screen."""

    @classmethod
    def of(cls, walls: pd.DataFrame) -> Fastest:
        """By the median of the seconds, a row per repeat."""
        from interp.kernels.rounding import Screened

        times = walls.median()
        ran: list[Screened] = [name for name in get_args(Screened) if name in walls]
        screen = min(ran, key=times.__getitem__, default=None)
        fused = min(filter(None, ("tiled", screen)), key=times.__getitem__)
        return cls(min(("mm", "mm_workers"), key=times.__getitem__), screen, fused)


def _certified(case: Case, screen: Screened | None) -> dict[str, Any]:
    """What is said of the screen that is fastest here, if there is one."""
    return {"screen": screen, "certified_share": case.certified(screen)} if screen else {}


def _ratios(seconds: pd.DataFrame, fastest: Fastest, suffix: str) -> dict[str, float]:
    """Median, smallest and largest of the ratios that are metrics."""
    bare = seconds[fastest.baseline]
    named = {"fp32_ratio": seconds["tiled"] / bare}
    if fastest.screen:
        named["certified_ratio"] = seconds[fastest.screen] / bare
    named["naive_ratio"] = seconds["naive"] / seconds[fastest.fused]
    return {
        f"{name}{suffix}{end}": round(float(getattr(ratio, how)()), 4)
        for name, ratio in named.items()
        for end, how in (("", "median"), ("_min", "min"), ("_max", "max"))
    }


def _summary(
    ratios: pd.DataFrame,
    cpu_ratios: pd.DataFrame,
    job_s: pd.Series[float],
    peaks: dict[str, int],
    missing: dict[str, str],
) -> pd.DataFrame:
    import pandas as pd

    ran = pd.DataFrame(
        {
            "ratio": ratios.median(),
            "ratio_min": ratios.min(),
            "ratio_max": ratios.max(),
            "ratio_cpu": cpu_ratios.median(),
            "job_s": job_s,
            "peak_bytes": pd.Series(peaks).astype("int64"),
            "missing": "",
        }
    )
    lacking = pd.DataFrame({"missing": pd.Series(missing, dtype=object)})
    return pd.concat([ran, lacking]).rename_axis("variant").reset_index()


def _roofline(shapes: dict[str, Shape], k: int) -> pd.DataFrame:
    import pandas as pd

    s = pd.DataFrame(shapes.values(), index=pd.Index(shapes, name="shape")).reset_index()
    kept = 4.0 * (s["rows"] + s["vocabulary"]) * s["d"] + s["rows"] * (2 * k * 12 + 40)
    operations = 2.0 * s["rows"] * s["d"] * s["vocabulary"]
    dense = kept + 8.0 * s["rows"] * s["vocabulary"]
    return s.assign(operations=operations, bytes=kept, dense_bytes=dense)

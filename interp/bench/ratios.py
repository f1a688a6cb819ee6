"""Every speed that the docs state as a ratio, measured here and now in one process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from ..errors import UserError
from ..timing import Pair, Ratio, ratio_of, turns_of
from .figures import NAMES
from .kernels import KernelBenchConfig

Source = Callable[[str], Iterable[Pair]]
NONE = float("nan")


def of_kernels(config: KernelBenchConfig) -> Iterator[Ratio]:
    """The variants of the projection that can run here, at each shape."""
    for shape, baseline, summary in config.summaries():
        for row in summary.to_dict("records"):
            if not row["variant"].startswith("mm"):
                about = ("kernels", f"{shape}: {NAMES[row['variant']]}", NAMES[baseline])
                ratios = (row["ratio"], row["ratio_min"], row["ratio_max"], row["ratio_cpu"])
                yield Ratio(*about, *ratios, row["missing"])


def of_analyses(sources: Mapping[str, Source], model: str, repeats: int) -> Iterator[Ratio]:
    """What the analyses say of their own speed.

    Args:
        sources: by the analysis's name, a function that makes its pairs for a model.
    """
    for name, source in sources.items():
        try:
            pairs = list(source(model))
        except UserError as error:
            about = (name, f"what {name} costs", "")
            yield Ratio(*about, NONE, NONE, NONE, NONE, str(error))
            continue
        for pair in pairs:
            yield ratio_of(pair, turns_of(pair, repeats))


def measured(
    sources: Mapping[str, Source], kernels: KernelBenchConfig | None, model: str, repeats: int
) -> Iterator[Ratio]:
    """The kernels' ratios and the analyses'."""
    if kernels:
        yield from of_kernels(kernels)
    yield from of_analyses(sources, model, repeats)

"""The kernels' benchmark: a small run, its tables, figures and refusals."""

import pytest

import interp.kernels.bench
from interp.bench import figures, ratios
from interp.bench.kernels import KernelBenchConfig
from interp.errors import UserError
from interp.kernels.accuracy import CPU_IMPLS
from interp.runs.study import run_or_load


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    sizes = {"d": 32, "vocabulary": 3000, "rows": 300, "repeats": 2}
    config = KernelBenchConfig(**sizes, others=("topk", "faiss"), accuracy_rows=12)
    return run_or_load(config, out=tmp_path_factory.mktemp("bench") / "run")


def test_every_kind_of_data_is_exact_and_its_certified_share_reported(run):
    assert run.metrics["exact"] is True
    shares = run.table("accuracy/shares")
    assert shares["exact"].all()
    assert shares["certified"].between(0, 1).all()
    # kinds and a small vocabulary, paths, k; and one with fewer tokens than the last k
    assert len(shares) == ((6 + 1) * 3 + 2) * len(CPU_IMPLS)
    for impl in CPU_IMPLS:
        by_kind = shares[(shares["impl"] == impl) & (shares["k"] == 16)].set_index("data")
        assert by_kind.loc["gaussian", "certified"] == 1
        # int8 keeps enough candidates to prove some ties
        assert by_kind.loc["duplicated", "certified"] < (0.9 if impl == "screened8" else 0.5)


def test_errors_are_largest_for_naive_bfloat16(run):
    errors = run.table("accuracy/errors").pivot(
        index=["data", "statistic"], columns="variant", values="largest"
    )
    assert (errors["naive bfloat16"] > 10 * errors["tiled"]).all()
    for impl in CPU_IMPLS:
        assert (errors["naive bfloat16"] > errors[impl]).all()
    logsumexp = errors["screened"].xs("logsumexp", level="statistic")
    assert logsumexp["gaussian, 100 tokens"] < 2e-3


def test_times_are_of_every_variant_and_repeat(run):
    seconds, summary = run.table("times/seconds"), run.table("summary/variants")
    ran = summary[summary["ratio"].notna()]
    assert {"mm", "mm_workers", "tiled", "naive", "topk"} <= set(ran["variant"])
    assert (seconds.groupby("variant").size() == 2).all()
    assert set(seconds["variant"]) == set(ran["variant"])
    assert (summary[summary["ratio"].isna()]["missing"] != "").all()
    # a shape of one's own is the whole job: the extrapolated time is the measured one
    tiled = seconds[seconds["variant"] == "tiled"]["wall_s"].median()
    assert ran.set_index("variant").loc["tiled", "job_s"] == pytest.approx(tiled)


def test_operations_and_bytes(run):
    shape = run.table("shapes/shapes").iloc[0]
    assert shape["operations"] == 2 * 300 * 32 * 3000
    assert shape["dense_bytes"] - shape["bytes"] == 2 * 4 * 300 * 3000


def test_figures_show_what_the_tables_say(run):
    summary, shapes = run.table("summary/variants"), run.table("shapes/shapes")
    bars = figures.kernel_ratios(summary).data[0]
    assert len(bars.y) == summary["ratio"].notna().sum()
    assert min(bars.x) == pytest.approx(summary["ratio"].min())
    roofline = figures.kernel_roofline(summary, shapes, run.manifest["bandwidth_bytes_per_s"])
    points = {trace.name: trace for trace in roofline.data if trace.mode == "markers"}
    roofs = {trace.name for trace in roofline.data if trace.mode == "lines"}
    products = [name for name in summary["variant"] if name.startswith("mm_")]
    assert roofs == {figures.NAMES[name] for name in products}
    naive, fused = points["naive torch"], points["fused, float32, exact"]
    assert naive.x[0] < fused.x[0], "the dense version moves more bytes an operation"
    seconds = run.table("times/seconds")
    naive_s = seconds[seconds["variant"] == "naive"]["wall_s"].median()
    assert naive.y[0] == pytest.approx(shapes["operations"][0] / naive_s / 1e9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"repeats": 0}, "at least 1"),
        ({"d": 8}, "--vocabulary too"),
        ({"vocabulary": 4}, "no smaller than --k"),
        ({"shape": ()}, "at least one --shape"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        KernelBenchConfig(**changes).check()


SECONDS = {
    "mm": (2, 3),
    "mm_workers": (1, 4),
    "screened": (3, 8),
    "screened8": (5, 2),
    "tiled": (4, 5),
    "naive": (12, 24),
}
"""Of a made case, by the clock and of the processor, which has other variants as the fastest."""


class Timed:
    """A case that takes SECONDS."""

    def __init__(self, *shape):
        self.missing = {"faiss": "not installed"}

    def warm_up(self):
        return dict.fromkeys(SECONDS, 0)

    def repeat(self, number):
        return [
            {"variant": name, "repeat": number, "wall_s": float(wall), "cpu_s": float(cpu)}
            for name, (wall, cpu) in SECONDS.items()
        ]

    def certified(self, screen):
        return 0.75 if screen == "screened" else 0.25


def test_a_part_of_a_shape_is_called_one():
    whole, cut = KernelBenchConfig(), KernelBenchConfig(shape=("smollm2-135m",), rows=8)
    assert list(whole._shapes()) == list(whole.shape)
    assert list(cut._shapes()) == ["smollm2-135m, 8 rows, 49152 tokens"]
    assert not set(KernelBenchConfig(rows=8)._shapes()) & set(whole.shape)


def test_times_of_the_processor_are_of_the_variants_that_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(interp.kernels.bench, "Case", Timed)
    monkeypatch.setattr(interp.kernels.bench, "bandwidth", lambda: 1e9)
    config = KernelBenchConfig(d=8, vocabulary=32, rows=8, accuracy_rows=0)
    run = run_or_load(config, out=tmp_path / "run")
    found = run.metrics
    assert (found["baseline"], found["screen"]) == ("mm_workers", "screened")
    assert (found["certified_ratio"], found["certified_share"]) == (3 / 1, 0.75)
    assert (found["certified_ratio_cpu"], found["fp32_ratio_cpu"]) == (8 / 4, 5 / 4)
    assert (found["naive_ratio"], found["naive_ratio_cpu"]) == (12 / 3, 24 / 8)
    summary = run.table("summary/variants").set_index("variant")
    assert summary["ratio_cpu"].dropna().to_dict() == {
        name: cpu / 4 for name, (_, cpu) in SECONDS.items()
    }


@pytest.mark.parametrize(
    ("seconds", "named"),
    [((2, 1), "bare product, worker threads"), ((1, 2), "bare product, torch's threads")],
)
def test_a_ratio_names_the_product_that_it_is_to(seconds, named, monkeypatch):
    for name, wall in zip(("mm", "mm_workers"), seconds, strict=True):
        monkeypatch.setitem(SECONDS, name, (wall, 1))
    monkeypatch.setattr(interp.kernels.bench, "Case", Timed)
    config = KernelBenchConfig(d=8, vocabulary=32, rows=8, accuracy_rows=0)
    rows = {row.what: row for row in ratios.of_kernels(config)}
    assert {row.against for row in rows.values()} == {named}
    assert rows["own: fused, float32, exact"].ratio == 4

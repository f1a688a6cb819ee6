"""An atlas with a search index answers as one without: the same rows, in the same order, with the
same numbers."""

import itertools
import shutil

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.cli import main
from interp.errors import UserError
from interp.neurons import agree, search
from interp.neurons.atlas import AtlasConfig
from interp.neurons.chance import p_values, q_by_steps
from interp.neurons.chance_steps import Steps
from interp.neurons.index import index_of, kept_at
from interp.neurons.indexing import write_rows
from interp.neurons.kept_index import make_index
from interp.neurons.layers import above_chance
from interp.runs.disk import sha256
from interp.runs.store import Store, open_run
from interp.runs.study import run_or_load

from ..manifests import finish_by_hand, seal_again

WORDS = ["dog", "cat", "", "a b", "x"]
TOKENS = ["dog", " dog", "Dogs", "cat", "\n", " ", "a b", "x", "x", "##", "rare"]
OF_TOKEN = ["dog", "dog", "dog", "cat", "", "", "a b", "x", "x", "", "rare"]


def random_rows(rng, layer, kinds, experts, n, k):
    """Rows with many equal numbers, some of them null, in lists of the small vocabulary."""
    few = [-1.0, 0.5, 0.5, 1.0, 2.0, 2.25]
    rows = []
    for kind, expert, neuron, side in itertools.product(
        kinds, experts, range(n), ("top", "bottom")
    ):
        ids = rng.permutation(len(TOKENS) + 1)[:k]  # the last id is no token of the vocabulary
        logits = np.sort(rng.choice(few, k))[::-1] * (1 if side == "top" else -1)
        null = rng.random() < 0.15
        z, margin, coherence = rng.choice(few, 3)
        rows.append(
            {"layer": layer, "kind": kind, **({"expert": expert} if experts != [""] else {}),
             "neuron": neuron, "side": side, "ids": ids.astype(np.int32),
             "tokens": [[*TOKENS, "<none>"][i] for i in ids], "logits": logits.astype(np.float32),
             "norm": rng.choice(few), "std": rng.choice([0.5, 1.0, 3.0]),
             "z": None if null else z, "margin": None if null else margin,
             "coherence": None if null or rng.random() < 0.2 else coherence,
             "skewness": None if null else rng.choice(few), "kurtosis": None if null else 1.0}
        )  # fmt: skip
    frame = pd.DataFrame(rows)
    small = dict.fromkeys(("norm", "std", "z", "margin", "coherence", "skewness", "kurtosis"), "f4")
    return frame.astype({**small, "layer": "i2", "neuron": "i4"})


def random_atlas(store, seed, experts=False, layers=2, n=6, k=6, with_random=True, **more):
    """An atlas without an index, as an earlier version left it."""
    rng = np.random.default_rng(seed)
    kinds, own = ["up", "down"], ["", "e0", "shared"] if experts else [""]
    words = {"id": np.arange(len(TOKENS), dtype=np.int32), "token": TOKENS, "word": OF_TOKEN}
    made = {"vocabulary/tokens.parquet": pd.DataFrame(words).to_parquet}
    for layer in range(layers):
        for folder in ("neurons", "random") if with_random else ("neurons",):
            table = pa.Table.from_pandas(random_rows(rng, layer, kinds, own, n, k))
            made[f"{folder}/L{layer:03d}.parquet"] = lambda path, rows=table: write_rows(rows, path)
    model = {"n_layers": layers, "d_mlp": n, "n_experts": 2 * experts, "d_expert": n, "d_shared": n}
    config = {"k": k, "model": f"random {seed}", "random": layers * n, "norm": "raw"}
    return open_run(
        finish_by_hand(store, "neurons.atlas", config, made=made, model=model, kinds=kinds, **more)
    )


def asked(ask, *args, **options):
    """An answer, or what the error says."""
    try:
        return ask(*args, **options)
    except UserError as error:
        return str(error)


def same(first, second):
    if isinstance(first, str) or isinstance(second, str):
        assert first == second
    else:
        pd.testing.assert_frame_equal(first, second, check_exact=True)


def questions(atlas):
    """Every question to an atlas, with all options."""
    ranks = ["score", "coherence"]
    limits = (3, 10_000)
    texts = ["dog", " dog", "a b", "x", "\n", "##", "none"]
    filters = [{"kinds": ["down"]}, {"up_to": 1}, {"layer": 1}, {"layer": 0, "kinds": ["up"]}]
    for text, exact, by, limit in itertools.product(texts, (False, True), ranks, limits):
        yield search.find, (text, exact, limit, by), {}
    for exact, by, some in itertools.product((False, True), ranks, filters):
        yield search.find, ("dog", exact, 5, by), some
    for by, limit, layer, kind, words in itertools.product(
        ranks, limits, (None, 1), (None, "up"), (False, True)
    ):
        yield search.top, (limit, layer, kind, words, by), {}
    for name in ("0.up.0", "1.down.5", "1.e0.up.3", "1.shared.down.2", "9.up.0", "0.gate.1"):
        yield search.show, (name,), {}
        yield search.values_in_layer, (name, "norm"), {}
    for statistic in search.statistics(atlas):
        yield search.density, (statistic,), {}
        yield search.density, (statistic, 7), {}


ATLASES = [
    (0, {}),
    (2, {"k": 2, "n": 1}),
    (3, {"with_random": False}),
    (4, {"k": 12}),
]
WITH_EXPERTS = (1, {"experts": True})


def assert_answers_are_the_same(folder, seed, options, step):
    """Of every `step`th question."""
    atlas = random_atlas(folder, seed, **options)
    assert index_of(atlas) is None
    chosen = list(itertools.islice(questions(atlas), seed % step, None, step))
    naive = [asked(ask, atlas, *args, **more) for ask, args, more in chosen]
    assert sum(isinstance(answer, str) for answer in naive) < 0.7 * len(naive)
    make_index(atlas)
    assert index_of(atlas)
    for (ask, args, more), want in zip(chosen, naive, strict=True):
        found = asked(ask, atlas, *args, **more)
        if isinstance(want, pd.Series):
            want, found = want.to_frame(), found.to_frame()
        same(found, want)


@pytest.mark.parametrize(("seed", "options"), [WITH_EXPERTS, *ATLASES])
def test_every_answer_is_the_same_with_an_index(tmp_path, own_home, seed, options):
    """Of the atlas with experts all questions, of the others every third, each another third."""
    assert_answers_are_the_same(tmp_path, seed, options, 1 if "experts" in options else 3)


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "options"), ATLASES)
def test_all_answers_are_the_same_with_an_index(tmp_path, own_home, seed, options):
    assert_answers_are_the_same(tmp_path, seed, options, 1)


numbers = st.floats(-9, 9, allow_nan=False).map(lambda x: round(x, 1)) | st.just(np.nan)


def naive_q(score, rows, random):
    """By the definition: the minimum over t <= score of N p(t) / R(t), at most 1."""
    rows = rows[~np.isnan(rows)]
    at = [t for t in rows if t <= score]
    rates = (
        len(rows) * p / (rows >= t).sum() for t, p in zip(at, p_values(at, random), strict=True)
    )
    return np.nan if np.isnan(score) else min([1.0, *rates])


@settings(deadline=None, max_examples=200)
@given(st.lists(numbers), st.lists(numbers), st.lists(numbers), st.integers(1, 9))
def test_q_by_steps_is_that_of_all_rows(scores, rows, random, parts):
    rows, random = np.array(rows, float), np.array(random, float)
    found = Steps(random)
    for part in np.array_split(rows, parts):
        found.add(part)
    want = [naive_q(score, rows, random) for score in (*scores, *rows)]
    np.testing.assert_array_equal(q_by_steps([*scores, *rows], found.steps), want)
    assert len(found.table) <= len(np.unique(random)) + 1


@pytest.fixture(scope="module")
def made(model_folder, tmp_path_factory):
    """An atlas as it is made now."""
    store = Store(tmp_path_factory.mktemp("runs"))
    return run_or_load(AtlasConfig(model=str(model_folder("llama")), k=5, random=200), store)


def without_index(atlas, folder):
    """A copy of an atlas as an earlier version left it."""
    shutil.copytree(atlas.path, folder)
    shutil.rmtree(folder / "index")
    files = {n: about for n, about in atlas.manifest["files"].items() if not n.startswith("index")}
    seal_again(folder, {**atlas.manifest, "files": files})
    return open_run(folder)


def test_an_atlas_is_made_with_its_index(made, tmp_path, own_home):
    assert make_index(made) is made
    assert made.metrics["index_s"] >= 0
    old = without_index(made, tmp_path / "old")
    assert index_of(old) is None
    for ask, args in (
        (search.find, ("#7",)), (search.find, ("#7", True, 9, "coherence")),
        (search.top, (50,)), (search.show, ("1.up.3",)),
        (search.density, ("kurtosis",)), (above_chance, ()),
    ):  # fmt: skip
        same(ask(made, *args), ask(old, *args))
    for ask in (agree.agreement, agree.summary):
        same(ask(made, made), ask(old, old))
    assert run_or_load(AtlasConfig(**{**made.config, "weights": ()}), out=old.path).path == old.path


def test_an_index_is_the_same_whoever_makes_it(made, tmp_path, own_home):
    kept = make_index(without_index(made, tmp_path / "old"))
    mine, theirs = (
        {name: about["sha256"] for name, about in run.manifest["files"].items() if "index/" in name}
        for run in (kept, made)
    )
    assert mine == theirs
    assert "index/postings.parquet" in mine


def test_an_index_is_of_one_content(tmp_path, own_home):
    """That of other rows is another, in the same place too; a damaged one says how to mend it."""
    first = random_atlas(tmp_path / "a", 5)
    make_index(first)
    other = random_atlas(tmp_path / "b", 6)
    shutil.rmtree(first.path)
    shutil.copytree(other.path, first.path)
    assert index_of(open_run(first.path)) is None
    folder = kept_at(other)
    make_index(other)
    (folder / "index/words.parquet").write_bytes(b"damaged")
    with pytest.raises(UserError, match="interp neurons index --atlas .* --fresh"):
        search.find(other, "dog")
    make_index(other)
    assert len(search.find(other, "dog"))


def damaged(atlas, folder, name, rows):
    """A copy of an atlas with another table in its index, sealed as a stranger would."""
    shutil.copytree(atlas.path, folder)
    path = folder / "index" / f"{name}.parquet"
    rows(pd.read_parquet(path)).to_parquet(path)
    about = {"sha256": sha256(path), "bytes": path.stat().st_size}
    files = {**atlas.manifest["files"], f"index/{name}.parquet": about}
    seal_again(folder, {**atlas.manifest, "files": files})
    return open_run(folder)


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("words", lambda t: t.assign(start=t["start"] + 10**12)),
        ("words", lambda t: t.assign(count=-1)),
        ("words", lambda t: t.drop(columns="start")),
        ("postings", lambda t: t.drop(columns="row")),
        ("files", lambda t: t.assign(rows=10**6)),
        ("files", lambda t: t.assign(name="../manifest.json")),
        ("files", lambda t: t.drop(columns="name")),
        ("steps", lambda t: t.drop(columns="q")),
        ("random", lambda t: t.drop(columns="score")),
        ("rows", lambda t: t.drop(columns="z")),
    ],
)
def test_an_index_of_a_stranger_is_one_line(made, tmp_path, own_home, name, rows):
    strange = damaged(made, tmp_path / "sent", name, rows)
    questions = [(search.find, "#7"), (search.top, 9), (search.show, "1.up.3")]
    said = [asked(ask, strange, word) for ask, word in questions]
    assert any(isinstance(answer, str) for answer in said)


def test_rows_that_are_not_there_are_no_rows(made, tmp_path, own_home):
    """An index may name any number."""
    strange = damaged(made, tmp_path / "sent", "postings", lambda t: t.assign(row=-(2**31)))
    assert isinstance(asked(search.find, strange, "#7"), str)
    strange = damaged(made, tmp_path / "far", "postings", lambda t: t.assign(row=2**31 - 1))
    assert isinstance(asked(search.find, strange, "#7"), str)


def test_command(tmp_path, own_home, capsys):
    atlas = random_atlas(tmp_path, 7)
    command = ["neurons", "index", "--atlas", str(atlas.path)]
    assert main(command) == 0
    assert "MiB" in capsys.readouterr().out
    assert main([*command, "--json"]) == 0
    assert '"bytes"' in capsys.readouterr().out
    assert main(["neurons", "index", "--atlas", "nowhere"]) == 2

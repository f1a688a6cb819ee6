"""`saes measure`: each formula against numpy in float64 on all tokens at once; the replaced model
against one that is run by hand; stopped runs; the command and the figures."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from sae_lens import StandardSAE, StandardSAEConfig, TopKSAE, TopKSAEConfig

from interp.cli import main
from interp.errors import UserError
from interp.latents import labelled
from interp.latents.figures_measure import of_run
from interp.latents.labelled import labelled_file, python_packages, spelled_words
from interp.latents.means import gathered
from interp.latents.measure import MeasureConfig
from interp.latents.measured import summary
from interp.latents.reconstruction import ReconstructionSums
from interp.model.edits import Edit
from interp.model.prompting import Prompting
from interp.model.subject import open_subject
from interp.runs import checkpoint
from interp.runs.store import Store
from interp.runs.study import run_or_load
from interp.saes.open import open_saes
from interp.text.contexts import ContextStream

from ..conftest import make_model
from ..letters import letter_tokenizer

D, LENGTH = 32, 24
SPAN = 512


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A random model whose tokens are letters, and two SAEs of it."""
    folder = tmp_path_factory.mktemp("measure")
    model = make_model("llama", hidden_size=D, max_position_embeddings=SPAN)
    model.save_pretrained(folder / "model")
    letter_tokenizer(size=211).save_pretrained(folder / "model")
    torch.manual_seed(0)
    topk = TopKSAE(TopKSAEConfig(d_in=D, d_sae=48, k=6))
    plain = StandardSAE(StandardSAEConfig(d_in=D, d_sae=40))
    for name, inner in (("topk", topk), ("plain", plain)):
        with torch.no_grad():
            for parameter in inner.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        inner.cfg.metadata.hook_name = "blocks.0.hook_resid_post"
        inner.save_model(folder / "saes" / name)
    draw = np.random.default_rng(0)
    words = ["alpha", "Beta", "gamma", "delta (eps)", "zeta = 1", "eta\n"]
    lines = (json.dumps({"text": " ".join(draw.choice(words, 60))}) for _ in range(12))
    (folder / "corpus.jsonl").write_text("\n".join(lines))
    rows = ({"text": f"{w} {draw.choice(words)}", "label": w} for w in "xyz" for _ in range(9))
    (folder / "classes.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return MeasureConfig(
        model=str(folder / "model"),
        saes=str(folder / "saes"),
        corpus=str(folder / "corpus.jsonl"),
        classes=str(folder / "classes.jsonl"),
        tokens=LENGTH * 40,
        length=LENGTH,
        spliced=7,
        longest=0.0,
        texts=9,
        words=50,
    )


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    return run_or_load(config, Store(tmp_path_factory.mktemp("runs")))


def test_the_formulas_are_numpys():
    draw = np.random.default_rng(0)
    x, z = draw.standard_normal((500, 7)) + 1, draw.random((500, 9)) * (draw.random((500, 9)) < 0.3)
    x_hat = 0.6 * x + z @ draw.standard_normal((9, 7)) / 4
    x_hat[:5] = 0
    document = np.sort(draw.integers(0, 150, 500))  # more than there are groups
    sums = ReconstructionSums.empty(7, (9,))
    given = [torch.from_numpy(a) for a in (document, x, z, x_hat)]
    for part in (slice(0, 200), slice(200, 500)):
        own = [a[part] for a in given]
        sums.add_x(*own[:2])
        sums.add(0, *own)
    weights = torch.ones(2, 100).double()
    weights[1, 3] = 0
    for row, kept in zip((0, 1), (np.ones(500, bool), document % 100 != 3), strict=True):
        a, b = x[kept], x_hat[kept]
        lengths, error = np.linalg.norm(a, axis=1), ((a - b) ** 2).sum()
        with np.errstate(invalid="ignore"):
            cosine = np.nan_to_num((a * b).sum(1) / lengths / np.linalg.norm(b, axis=1))
        gammas = np.linspace(0.2, 30, 200_000)
        # |x_hat / gamma - x|^2 is least at gamma
        best = gammas[np.argmin((b**2).sum() / gammas**2 - 2 * (a * b).sum() / gammas)]
        right = {
            "fvu": error / ((a - a.mean(0)) ** 2).sum(),
            "fvu_uncentred": error / (a**2).sum(),
            "l0": (z[kept] != 0).sum(1).mean(),
            "cosine": cosine.mean(),
            "length": (np.linalg.norm(b, axis=1) / lengths).mean(),
        }
        found = {k: float(v[row]) for k, v in sums.measures(0, weights).items()}
        assert found.pop("gamma") == pytest.approx(best, rel=1e-3)
        assert found == pytest.approx(right, rel=1e-9)
    assert sums.fired[0].tolist() == (z != 0).sum(0).tolist()


def _by_hand(config):
    """(subject, SAEs, x of the measured tokens, ids of every context), read without the stream."""
    subject = open_subject(config.model)
    saes = open_saes(config.saes)
    stream = ContextStream(subject, [saes.site], config.corpus, LENGTH)
    rows = [ids for _, ids in stream.rows(40)]
    h = torch.cat([subject.capture(torch.tensor([ids]), [saes.site])[saes.site] for ids in rows])
    return subject, saes, h, rows


def test_measures_and_losses_are_those_of_all_tokens_at_once(config, run):
    subject, saes, h, rows = _by_hand(config)
    measures = run.table("measures").set_index(["sae", "measure"])["value"]
    x = h[4:, 1:].reshape(-1, D).double().numpy()
    assert run.manifest["measured_tokens"] == len(x) == 36 * (LENGTH - 1)
    spliced = [4 + n for n in range(36) if (n + 1) * 7 // 36 > n * 7 // 36]
    mean = h[:4, 1:].reshape(-1, D).mean(0)
    found = run.table("losses").set_index(["sae", "setting"])["ce"]

    def loss(change):
        edits = () if change is None else (Edit(saes.site, change),)
        total = 0.0
        for n in spliced:
            ids = torch.tensor([rows[n]])
            with subject.edited(*edits):
                logits = subject.logits(ids)[0, :-1].double()
            total += float(torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum"))
        return total / len(spliced) / (LENGTH - 1)

    def kept(first):
        return lambda h: torch.cat([h[:, :1], first(h[:, 1:])], 1)

    base = {"original": loss(None), "zero": loss(kept(torch.zeros_like))}
    base["mean"] = loss(kept(lambda h: mean.expand_as(h)))
    for name, value in base.items():
        assert found["", name] == pytest.approx(value, rel=1e-6)
    for name, sae in saes.by_name.items():
        z = sae.inner.encode(torch.from_numpy(x).float()).to_dense().detach()
        x_hat = sae.inner.decode(z).detach().double().numpy()
        error = ((x - x_hat) ** 2).sum()
        assert measures[name, "fvu"] == pytest.approx(error / ((x - x.mean(0)) ** 2).sum())
        assert measures[name, "l0"] == pytest.approx(float((z != 0).sum(1).double().mean()))
        assert measures[name, "dead"] == float((z == 0).all(0).double().mean())
        assert measures[name, "dense"] == float(((z != 0).double().mean(0) > 0.1).double().mean())
        ce = loss(kept(lambda h, sae=sae: sae.inner.decode(sae.inner.encode(h).to_dense())))
        assert found[name, "sae"] == pytest.approx(ce, rel=1e-6)
        for measure, of in (("loss_recovered", "zero"), ("loss_recovered_mean", "mean")):
            right = (base[of] - ce) / (base[of] - base["original"])
            assert measures[name, measure] == pytest.approx(right, rel=1e-3)
        assert measures[name, "loss_added"] == pytest.approx(ce - base["original"], rel=1e-3)


def test_texts_are_pooled_over_the_tokens_that_count(config, run, tmp_path):
    subject, saes, *_ = _by_hand(config)
    stream = ContextStream(subject, [saes.site], "", LENGTH, longest=0.0)
    given = labelled_file(config.classes, 9)
    rows = [subject.prompting.ids(text) for text in given.texts]

    class Nowhere:
        read = staticmethod(lambda: None)
        due = staticmethod(lambda: False)
        write = staticmethod(lambda *_: None)

    x, codes = gathered(stream, saes, rows, Nowhere(), "texts")
    for at in (0, 13, 26):
        h = subject.capture(torch.tensor([rows[at]]), [saes.site])[saes.site][0, 1:]
        torch.testing.assert_close(x[at], h.mean(0))
        for name, sae in saes.by_name.items():
            z = torch.from_numpy(codes[name][[at]].toarray()[0])
            torch.testing.assert_close(z, sae.encode(h).mean(0))
    tables = {name: run.table(name) for name in ("probing", "perturbation")}
    assert set(tables["probing"]["class"]) == {"x", "y", "z", ""}
    assert set(tables["perturbation"]["sae"]) == {"plain", "topk"}
    assert (tables["probing"]["unit"] == "text").all()


def test_a_stopped_run_reads_nothing_twice_and_is_the_same_bit_for_bit(
    config, run, tmp_path, monkeypatch
):
    """Stopped in the corpus, among the texts and among the words; tests/kills kills it."""
    read, calls = ContextStream.read, []
    monkeypatch.setattr(checkpoint, "SECONDS", 0)
    monkeypatch.setattr(checkpoint, "SHARE", 0)

    def counted(stream, part):
        calls.append(part)
        if len(calls) in stops:
            raise KeyboardInterrupt
        return read(stream, part)

    monkeypatch.setattr(ContextStream, "read", counted)
    stops = {11, 23, 27}
    for _ in stops:
        with pytest.raises(KeyboardInterrupt):
            run_or_load(config, Store(tmp_path))
    again = run_or_load(config, Store(tmp_path))
    # 20 passes of the corpus, 4 of the texts and 7 of the words; three of them were lost
    assert len(calls) == 20 + 4 + 7 + 3
    for name, about in run.manifest["files"].items():
        assert again.manifest["files"][name]["sha256"] == about["sha256"], name
    timed = {"seconds", "wall_s", "finished", "peak_memory_bytes", "seal"}
    for name in set(run.manifest) - timed:
        assert again.manifest[name] == run.manifest[name], name


def test_the_command_and_the_figures(config, run, capsys):
    given = {"model": config.model, "saes": config.saes, "corpus": config.corpus}
    options = [f"--{name}={value}" for name, value in given.items()]
    options += ["--tokens=960", "--length=24", "--longest=0", "--texts=0", "--words=0"]
    folder = str(run.path.parent / "other")
    assert main(["saes", "measure", *options, "--spliced=0", f"--out={folder}", "--json"]) in (
        0,
        None,
    )
    metrics = json.loads(capsys.readouterr().out.splitlines()[-1])["metrics"]
    assert metrics["fvu topk"] == run.metrics["fvu topk"]
    assert "loss_recovered topk" not in metrics
    rows = summary(run).set_index("sae")
    assert rows.loc["topk", "L0"] == "6 (6-6)"
    assert rows.loc["plain", "dead"] == f"{run.metrics['dead plain']:.3g}"
    assert {"FVU", "loss recovered", "probe, 1", "TPP, 20"} <= set(rows.columns)
    figures = of_run(run)
    assert {"fvu", "loss-recovered", "losses", "probing", "perturbation"} <= set(figures)
    for name, make in figures.items():
        assert make().data, name


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"tokens": 70}, "70 tokens make 2 contexts of 24: give 4 contexts or more"),
        ({"spliced": -1}, "--spliced must be 0 or more, not -1"),
        ({"texts": 2}, "--texts must be 0, or 3 or more to test on some, not 2"),
        ({"words": 5}, "--words must be 0, or 50 or more to test on some, not 5"),
        ({"skip": 24}, "--skip 24 leaves too little of --length 24"),
        ({"classes": "nowhere.jsonl"}, "no corpus at nowhere.jsonl"),
    ],
)
def test_settings_that_cannot_work_are_one_line(config, change, line, tmp_path):
    with pytest.raises(UserError, match=line):
        run_or_load(replace(config, **change), Store(tmp_path))


def test_a_model_without_a_tokenizer_has_no_texts(tmp_path):
    from interp.data import FOLDER

    games = FOLDER / "othello"
    config = MeasureConfig(
        model="othello-gpt",
        saes=str(games / "saes" / "saes" / "topk-L2-S0"),
        corpus=str(games / "games.safetensors"),
        length=59,
        tokens=59 * 20,
        spliced=2,
    )
    with pytest.raises(UserError, match="no tokenizer: give --texts 0 --words 0"):
        run_or_load(config, Store(tmp_path))
    run = run_or_load(replace(config, texts=0, words=0), Store(tmp_path))
    assert not run.has("probing")
    assert run.table("measures").set_index("measure").loc["loss_recovered", "value"] > 0.5


def test_pythons_packages_are_classes_whose_tested_files_are_their_own():
    given = python_packages(12)
    assert len(given.classes) == labelled.CLASSES
    assert np.bincount(given.label).tolist() == [12] * labelled.CLASSES
    assert not set(given.unit[given.tested]) & set(given.unit[~given.tested])
    for label in range(labelled.CLASSES):
        assert given.tested[given.label == label].sum() >= 3


def test_labelled_files(tmp_path):
    path = tmp_path / "one.jsonl"
    path.write_text("\n".join(json.dumps({"text": f"t{i}", "label": "a"}) for i in range(9)))
    with pytest.raises(UserError, match="has 1 labels with 3 texts or more: give two or more"):
        labelled_file(path, 9)
    with pytest.raises(UserError, match="no labelled texts at"):
        labelled_file(tmp_path / "no.jsonl", 9)
    path.write_text('{"text": "t"}')
    with pytest.raises(UserError, match="has no field 'label'"):
        labelled_file(path, 9)


def test_spelling_prompts_end_with_their_word():
    prompting = Prompting(letter_tokenizer(size=211))
    strings = [chr(i) for i in range(211)]
    words = spelled_words(prompting, strings, 40)
    assert len(set(words.texts)) == 40
    assert words.tested.sum() == 8
    for text, row, label in zip(words.texts, words.rows, words.label, strict=True):
        spelled = "".join(map(chr, row))
        *shown, last = spelled.split("\n")[1:]
        assert last == text
        assert labelled.LETTERS[label] == text.lower()
        assert len(shown) == labelled.EXAMPLES
        for line in shown:
            word, letter = line.split(" has the first letter: ")
            assert word != text
            assert letter == word.upper()
    with pytest.raises(UserError, match="the vocabulary has 0 words: give --words 0"):
        spelled_words(prompting, ["1", "?"], 40)

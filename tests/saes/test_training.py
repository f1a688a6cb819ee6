"""`interp saes train` and `interp saes activations`: on a small model, from text and from disk."""

import dataclasses

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from interp.cli import main
from interp.errors import UserError
from interp.model.site import Site
from interp.model.subject import open_subject
from interp.runs.store import Store
from interp.runs.study import run_or_load
from interp.saes import feed, open_sae
from interp.saes.activations import ActivationsConfig, StoredFeed
from interp.saes.training import SaeTrainConfig
from interp.text.contexts import ContextStream, corpus_rows

from ..darkmatter.planted import OTHELLO

TEXT = {"model": OTHELLO["model"], "corpus": OTHELLO["corpus"], "length": OTHELLO["length"]}
READ, GIVEN, STREAM = "2.mlp_in", "2.mlp_out", "2.resid_post"
SET = ActivationsConfig(
    **TEXT, sites=(READ, GIVEN, STREAM), tokens=4000, precision="float32", dtype="float32"
)
SMALL = {
    "widths": (256,),
    "l0": (8,),
    "tokens": 3840,
    "batch": 128,
    "precision": "float32",
    "lr": 1e-2,
}


@pytest.fixture(scope="module", autouse=True)
def small():
    """Few rows are held out, and shards are small."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feed, "HELD_OUT", 8)
        patch.setattr(feed, "MEASURED", 8)
        patch.setattr(feed, "POOL", 1000)
        yield


@pytest.fixture(scope="module")
def stored(small, tmp_path_factory):
    return run_or_load(SET, Store(tmp_path_factory.mktemp("sets")))


def sites(*names):
    return [Site.parse(name) for name in names]


def shards(run):
    return [load_file(path) for path in sorted(run.path.glob("activations/*.safetensors"))]


def test_a_set_holds_the_models_activations(stored) -> None:
    """Each is that of a token in the rows that follow the held-out ones, once; the three sites side
    by side."""
    made = shards(stored)
    assert stored.table("shards")["tokens"].tolist() == [len(part[READ]) for part in made]
    assert stored.metrics["tokens"] == sum(len(part[READ]) for part in made) >= 4000
    every = sites(READ, GIVEN, STREAM)
    subject = open_subject(TEXT["model"])
    rows = [ids for _, ids in corpus_rows(subject, TEXT["corpus"], TEXT["length"], 120)]
    batch = subject.pad(rows)
    captured = subject.capture(batch, every)
    kept = subject.counted(batch)
    kept[:, 0] = False  # each row's first position is left out
    assert kept[:8].sum() == len(load_file(stored.path / "held_out.safetensors")[READ])
    real = torch.cat([captured[site][8:][kept[8:]] for site in every], dim=1)
    seen = torch.cat([torch.cat([part[str(site)] for site in every], dim=1) for part in made])
    nearest = torch.cdist(seen, real).argmin(1)
    torch.testing.assert_close(seen, real[nearest], rtol=1e-4, atol=1e-4)
    # games that begin alike share their first activations
    assert len(nearest.unique()) > 0.95 * len(seen)
    assert not torch.equal(nearest, nearest.sort().values), "in random order"


def test_a_stopped_set_goes_on(stored, tmp_path, monkeypatch) -> None:
    read, calls = ContextStream.read, []

    def counted(stream, part):
        calls.append(part)
        if len(calls) == stop:
            raise KeyboardInterrupt
        return read(stream, part)

    monkeypatch.setattr(ContextStream, "read", counted)
    stop = 8
    with pytest.raises(KeyboardInterrupt):
        run_or_load(SET, Store(tmp_path))
    stop = -1
    made = run_or_load(SET, Store(tmp_path))
    assert made.manifest["files"] == stored.manifest["files"]
    assert len(calls) < 8 + 12


def test_batches_run_across_shards_from_anywhere(stored) -> None:
    source = StoredFeed(stored, sites(STREAM, READ))
    whole = {
        site: torch.cat([part[str(site)] for part in shards(stored)]) for site in (STREAM, READ)
    }
    for first in (0, 3, 17):
        for number, batch in enumerate(source.batches(128, 4000, 0, first), first):
            at = slice(128 * number, 128 * (number + 1))
            for name in (STREAM, READ):
                assert torch.equal(batch[Site.parse(name)], whole[name][at])
    assert number == len(whole[READ]) // 128 - 1


def test_float16_is_half_the_space_and_refuses_what_it_cannot_hold(tmp_path, monkeypatch) -> None:
    half = dataclasses.replace(SET, dtype="float16", sites=(READ,), tokens=1000)
    made = run_or_load(half, Store(tmp_path))
    assert {x.dtype for part in shards(made) for x in part.values()} == {torch.float16}
    read = ContextStream.read

    def larger(stream, part):
        part, tokens = read(stream, part)
        return part, tokens._replace(x=tokens.x * 1e6)

    monkeypatch.setattr(ContextStream, "read", larger)
    with pytest.raises(UserError, match=r"beyond float16: give --dtype float32"):
        run_or_load(dataclasses.replace(half, seed=1), Store(tmp_path))


@pytest.mark.parametrize("source", ["text", "set"])
def test_the_table_is_of_the_stored_saes(source, stored, tmp_path) -> None:
    given = {"activations": str(stored.path), "model": TEXT["model"]} if source == "set" else TEXT
    kinds = ("topk", "batchtopk", "gated")
    config = SaeTrainConfig(**given, **SMALL, site=STREAM, kinds=kinds)
    run = run_or_load(config, Store(tmp_path))
    held_out = load_file(stored.path / "held_out.safetensors")[STREAM]
    rows = run.table("saes").to_dict("records")
    assert [row["name"] for row in rows] == [f"{kind}-w256-k8" for kind in kinds]
    for row in rows:
        sae = open_sae(run.path / "saes" / row["name"])
        assert (sae.site, sae.d_sae) == (STREAM, 256)
        z = sae.encode(held_out)
        x, x_hat = held_out.double().numpy(), sae.decode(z).double().numpy()
        off = np.square(x - x_hat).sum() / np.square(x - x.mean(0)).sum()
        assert row["fvu"] == pytest.approx(off, rel=1e-6)
        assert row["l0"] == pytest.approx(float((z > 0).sum(1).double().mean()), rel=1e-9)
        assert row["alive"] == int((z > 0).any(0).sum())
    assert rows[0]["l0"] == 8
    assert rows[0]["fvu"] < 0.9
    assert {f"fvu_{row['name']}" for row in rows} < set(run.metrics)


def test_transcoders_from_a_set(stored, tmp_path) -> None:
    config = SaeTrainConfig(
        TEXT["model"],
        **SMALL,
        site=READ,
        gives=GIVEN,
        kinds=("jumprelu", "l1"),
        activations=str(stored.path),
    )
    run = run_or_load(config, Store(tmp_path))
    held_out = load_file(stored.path / "held_out.safetensors")
    x, y = (held_out[site].double().numpy() for site in (READ, GIVEN))
    for row in run.table("saes").to_dict("records"):
        stored_weights = load_file(run.path / "saes" / row["name"] / "sae_weights.safetensors")
        w = {name: value.double().numpy() for name, value in stored_weights.items()}
        pre = x @ w["W_enc"] + w["b_enc"]
        z = np.maximum(pre, 0) * (pre > w.get("threshold", 0))
        off = np.square(y - z @ w["W_dec"] - w["b_dec"]).sum() / np.square(y - y.mean(0)).sum()
        assert row["fvu"] == pytest.approx(off, rel=1e-4)
        assert row["l0"] == pytest.approx((z > 0).sum(1).mean(), rel=1e-3)


def test_a_damaged_shard_is_one_line(stored, tmp_path, monkeypatch) -> None:
    copied = run_or_load(SET, out=tmp_path / "set")
    shard = sorted(copied.path.glob("activations/*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-4] + b"abcd")
    config = SaeTrainConfig(
        TEXT["model"], **SMALL, site=STREAM, kinds=("topk",), activations=str(copied.path)
    )
    with pytest.raises(UserError, match="is not what the run wrote"):
        run_or_load(config, Store(tmp_path))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kinds": ("topk", "topk")}, "--kinds at least one kind, each once"),
        ({"kinds": ()}, "--kinds at least one kind, each once: topk, batchtopk"),
        ({"l0": (256,)}, "every l0 from 1 to below the widths"),
        ({"widths": (256, 256)}, "--widths has a number twice"),
        ({"site": "2.mlp_gate"}, "no hook for the site '2.mlp_gate'"),
        ({"gives": STREAM}, "--gives is --site"),
        ({"gives": GIVEN, "kinds": ("topk",)}, "no transcoder of the kind topk"),
        ({"tokens": 10**6}, "holds [0-9]+ tokens: give --tokens [0-9]+ or less"),
        ({"model": "smollm2-135m"}, "holds activations of othello-gpt, not of smollm2-135m"),
        ({"corpus": "x.txt"}, "leave them out"),
        ({"bos": "never"}, "leave them out"),
        ({"lr": 0.0}, "--lr must be above 0"),
        ({"precision": "int8"}, "--precision must be"),
    ],
)
def test_settings_that_cannot_work(change, words, stored) -> None:
    settings = {"model": TEXT["model"], **SMALL, "site": STREAM, "activations": str(stored.path)}
    with pytest.raises(UserError, match=words):
        SaeTrainConfig(**{**settings, **change}).check()


def test_a_site_that_the_set_lacks(stored, tmp_path) -> None:
    config = SaeTrainConfig(
        TEXT["model"], **SMALL, site="1.resid_post", activations=str(stored.path)
    )
    with pytest.raises(UserError, match="no activations of 1.resid_post: 2.mlp_in, 2.mlp_out"):
        run_or_load(config, Store(tmp_path))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sites": ()}, "--sites at least one"),
        ({"sites": (READ, READ)}, "each once"),
        ({"tokens": 0}, "--tokens at least 1"),
    ],
)
def test_sets_that_cannot_be(change, words) -> None:
    with pytest.raises(UserError, match=words):
        dataclasses.replace(SET, **change).check()


def test_from_the_command_line(stored, tmp_path, capsys) -> None:
    command = (
        f"saes train --model othello-gpt --site {STREAM} --kinds topk --widths 64 --l0 4 --tokens "
        f"512 --batch 128 --activations {stored.path} --runs {tmp_path} --precision float32"
    )
    assert main(command.split()) == 0
    assert "topk-w64-k4" in capsys.readouterr().out
    assert main(f"{command} --gives {STREAM}".split()) == 2
    assert "--gives is --site" in capsys.readouterr().err

"""The pages of directions without a browser: what they show, and that nothing old is shown."""

import json
import shlex
import shutil
from functools import partial

import pandas as pd
import pytest
import torch
from sae_lens import StandardSAE, StandardSAEConfig
from streamlit.testing.v1 import AppTest

from interp.apps import kept_compare
from interp.apps.chips import apart, chip, chip_html
from interp.apps.sets import stored_sets
from interp.cli import main
from interp.directions import Directions, kept_pairs
from interp.directions.collections import open_collection
from interp.directions.keeping import keep, keep_directions, keep_prompt, keep_view
from interp.directions.provenance import Provenance
from interp.model.site import Site
from interp.model.weights import open_weights
from interp.report import of_collection
from interp.report.of_collection import report_of_collection
from interp.runs.store import Store

from ..manifests import finish_by_hand


def direction_page():
    from interp.apps.direction import page

    page()


def directions_page():
    from interp.apps.directions import page

    page()


def kept_page():
    from interp.apps.kept import page

    page()


@pytest.fixture(autouse=True)
def store(own_home):
    return own_home / "runs"


def asked(page, model, **params):
    """A page at these parameters, with a model chosen for all pages."""
    shown = AppTest.from_function(page, default_timeout=120)
    shown.session_state["chosen model"] = str(model)
    for name, value in params.items():
        shown.query_params[name] = value
    shown.run()
    assert not shown.exception
    return shown


def said(shown):
    """All texts of a page."""
    kinds = (shown.caption, shown.markdown, shown.warning, shown.info, shown.error, shown.subheader)
    return "\n".join(each.value.replace("\\", "") for kind in kinds for each in kind)


def codes(shown):
    return [block.value for block in shown.code]


def a_set(model, site="0.resid_post", seed=0, n=2, weights=None):
    vectors = torch.randn(n, 32, generator=torch.Generator().manual_seed(seed))
    index = pd.DataFrame({"name": [f"v{i}" for i in range(n)]})
    made = Provenance.of("some.study", open_weights(str(model)))
    return Directions(Site.parse(site), vectors, index, made)


def stored(store, directions, name="directions", study="some.study", **config):
    """A finished run with one set."""
    scratch = store.parent / "made"
    directions.save(scratch)
    made = {f"{name}/{path.name}": partial(shutil.copy, path) for path in scratch.iterdir()}
    return finish_by_hand(store, study, config, made=made)


def test_a_neuron_says_what_it_is_and_what_it_spells(dog_model):
    shown = asked(direction_page, dog_model, direction="1.down.17")
    text = said(shown)
    assert ":blue-badge[1.mlp_out]" in text
    assert "the activation at 1.mlp_post" in text
    command = next(line for line in codes(shown) if "interp directions decode" in line)
    assert f"1.down.17 --limit 15 --model {dog_model}" in command
    figure = json.loads(shown.get("plotly_chart")[0].proto.spec)
    top, bottom = (figure["data"][i]["y"] for i in (0, 1))
    assert top[0] == "1  dog"
    assert len(top) == len(bottom) == 15
    assert figure["layout"]["xaxis"]["range"] == figure["layout"]["xaxis2"]["range"]


def test_without_a_direction_it_offers_some(dog_model):
    shown = asked(direction_page, dog_model)
    assert "Name one above" in said(shown)
    assert "direction=29.down.808" in said(shown).replace("%2E", ".")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nonsense", "names no neurons"),
        ("9.down.0", "no layer 9"),
        ("run:ffff/x:1", "there is no run"),
        ("kept:nobody", "there is no collection"),
        ("x" * 10_000, "names no neurons"),
        ("../../etc/passwd", "names no neurons"),
        ("\0", "names no neurons"),
    ],
)
def test_a_mistake_is_one_line_in_its_place(text, says, dog_model):
    shown = asked(direction_page, dog_model, direction=text)
    assert says in shown.error[0].value.replace("\\", "")


def test_one_of_a_set_is_chosen_and_gets_its_own_text(store, dog_model):
    run = stored(store, a_set(dog_model))
    shown = asked(direction_page, dog_model, direction=f"run:{run.name}", row="1")
    assert f"run:{run.name}:1" in codes(shown)
    assert "v1" in said(shown)
    own = asked(direction_page, dog_model, direction=f"run:{run.name}:1")
    assert f"run:{run.name}:1" in codes(own)


def test_overwritten_at_the_same_path_and_the_new_tokens_are_shown(own_home, dog_model):
    """Fault 3: what was remembered of a path was shown of whatever lies there now."""
    folder, weights = own_home / "mine", open_weights(str(dog_model))

    def top_of(word):
        row = weights.W_U()[word][None]
        index = pd.DataFrame({"name": ["mine"]})
        about = Provenance.of("test", weights)
        Directions(Site("resid_post", 1), row, index, about).save(folder)
        shown = asked(direction_page, dog_model, direction=str(folder))
        figure = json.loads(shown.get("plotly_chart")[0].proto.spec)
        return figure["data"][0]["y"][0]

    want = [f"1  w{word}" for word in (7, 41, 7)]
    logits = weights.W_U() @ weights.W_U()[[7, 41]].T
    assert logits.argmax(0).tolist() == [7, 41]  # each spells itself
    assert [top_of(word) for word in (7, 41, 7)] == want


def test_token_embeddings_and_read_vectors_are_cautioned(store, dog_model):
    run = stored(store, a_set(dog_model, "0.resid_pre"))
    for page, params in (
        (direction_page, {"direction": f"run:{run.name}:0"}),
        (directions_page, {"set": f"run:{run.name}"}),
    ):
        shown = asked(page, dog_model, **params)
        assert "0.resid_pre holds the token embeddings" in shown.warning[0].value.replace("\\", "")
    read = asked(direction_page, dog_model, direction="1.up.3")
    assert "read and not written" in said(read)
    assert not asked(direction_page, dog_model, direction="1.down.3").warning


def test_a_site_without_logits_is_said_to_have_none(store, dog_model):
    index = pd.DataFrame({"name": ["v"]})
    about = Provenance.of("test", open_weights(str(dog_model)))
    # as wide as the stream, and yet no vector of it
    heads = Directions(Site.parse("0.head_z"), torch.randn(1, 32), index, about)
    run = stored(store, heads)
    shown = asked(direction_page, dog_model, direction=f"run:{run.name}:0")
    assert "not those of the residual stream" in shown.error[0].value.replace("\\", "")


def test_the_nearest_neurons_lead_on(dog_model):
    shown = asked(direction_page, dog_model, direction="1.down.17", view="nearest")
    table = shown.dataframe[0].value
    assert "1.down.17" not in table["neuron"].tolist()
    assert len(table) == 20
    assert "not listed beside itself" in said(shown)
    assert "once in 20 times" in said(shown)
    assert any("interp directions nearest 1.down.17 --limit 20" in line for line in codes(shown))
    some = asked(direction_page, dog_model, direction="1.down.17", view="nearest", kinds="up")
    assert set(some.dataframe[0].value["kind"]) == {"up"}


def test_the_text_is_coloured_when_it_is_asked_for(dog_model):
    params = {"direction": "1.down.17", "view": "text", "text": "w5 dog w9"}
    shown = asked(direction_page, dog_model, **params)
    assert "Nothing is loaded yet" in said(shown)
    run = asked(direction_page, dog_model, **params, run="yes")
    assert "The largest, in size, after the first token is" in said(run)
    assert any("interp directions text 1.down.17 --text 'w5 dog w9'" in x for x in codes(run))


@pytest.fixture
def corpus(monkeypatch):
    """A text of words that the model has, in the place of the usual one."""
    text = " ".join(f"w{i % 97 + 1}" for i in range(9000))
    for module in ("interp.apps.direction_text", "interp.text.contexts"):
        monkeypatch.setattr(f"{module}.read_corpus", lambda _: iter([text]))


def test_the_top_examples_of_a_corpus(dog_model, corpus):
    """The model's context is 64, and rows have no more."""
    params = {"direction": "1.down.17", "view": "examples", "tokens": "2048", "run": "yes"}
    shown = asked(direction_page, dog_model, **params)
    assert not shown.error, said(shown)
    assert list(shown.dataframe[0].value)[:2] == ["score", "z"]
    assert shown.dataframe[0].value["score"].is_monotonic_decreasing


def test_compared_with_another_by_its_text(dog_model):
    shown = asked(direction_page, dog_model, direction="0.down.2", view="compare", other="1.up.4")
    assert "composition" in said(shown)
    labels = [each.label.replace("\\", "") for each in shown.metric]
    assert labels == ["cosine", "coupling", "cosine in the stream, before the norm"]
    bad = asked(direction_page, dog_model, direction="0.down.2", view="compare", other="no such")
    assert "names no neurons" in said(bad)


def test_split_by_an_sae_that_is_stored(store, dog_model, corpus):
    torch.manual_seed(0)
    inner = StandardSAE(StandardSAEConfig(d_in=32, d_sae=40))
    inner.cfg.metadata.hook_name = "blocks.0.hook_resid_post"
    inner.cfg.metadata.model_name = str(dog_model)
    scratch = store.parent / "sae"
    inner.save_model(scratch)
    made = {f"saes/a/{path.name}": partial(shutil.copy, path) for path in scratch.iterdir()}
    trained = finish_by_hand(store, "saes.train", {}, made=made)
    run = stored(store, a_set(dog_model))
    source = f"run:{trained.name}/saes/a"
    params = {"direction": f"run:{run.name}:0", "view": "split", "sae": source, "tokens": "2048"}
    shown = asked(direction_page, dog_model, **params, run="yes")
    assert not shown.error, said(shown)
    shares = [float(each.value.rstrip("%")) for each in shown.metric]
    assert sum(shares) == pytest.approx(100, abs=0.2)
    assert any(f"--sae {source}" in line for line in codes(shown))
    params = {"direction": f"sae:{source}:3", "view": "nearest", "latents": "yes", "sae": source}
    found = asked(direction_page, dog_model, **params)
    assert 3 not in found.dataframe[1].value["latent"].tolist()


def test_kept_on_its_page_and_found_in_the_collection(dog_model):
    shown = asked(direction_page, dog_model, direction="1.down.17", view="keep")
    shown.text_area[0].set_value("the dog neuron")
    next(b for b in shown.button if "Keep it" in b.label).click().run()
    assert not shown.exception
    (entry,) = open_collection("my collection").entries
    assert (entry.source, entry.note, entry.site) == ("1.down.17", "the dog neuron", "1.mlp_out")
    kept = asked(kept_page, dog_model, name="my collection")
    assert "1.down.17" in said(kept)
    kept.text_area[1].set_value("changed").run()
    assert open_collection("my collection").entries[0].note == "changed"


def test_the_form_gives_its_title_and_says_what_is_there_already(dog_model, capsys):
    shown = asked(direction_page, dog_model, direction="1.down.17", view="keep")
    assert not shown.get("form")[0].proto.form.enter_to_submit
    next(t for t in shown.text_input if t.label == "Title").set_value("dog's own")
    shown.text_area[0].set_value("two\nlines")
    keep_it = next(b for b in shown.button if "Keep it" in b.label)
    keep_it.click().run()
    assert "already" not in said(shown)
    command, call = codes(shown)[-2:]
    exec(call, {})
    assert main(shlex.split(command)[1:]) == 0
    every = open_collection("my collection").entries
    told = {(e.source, e.title, e.note, e.model) for e in every}
    assert told == {("1.down.17", "dog's own", "two\nlines", str(dog_model))}
    assert len(every) == 3
    next(b for b in shown.button if "Keep it" in b.label).click().run()
    assert f"had the same already, as {every[0].id}" in said(shown)
    kept = asked(kept_page, dog_model, name="my collection")
    heads = [each.value for each in kept.subheader]
    assert len(set(heads)) == len(heads) == 4
    assert every[0].read_as
    assert f"from 1.down.17 · score: {every[0].read_as}" in said(kept)


def test_two_models_of_one_name_have_two_chips():
    models = ["/home/secret/one/model", "/home/secret/two/model", "/x/other", "smollm2-135m"]
    want = ["one/model", "two/model", "other", "smollm2-135m"]
    assert apart(models) == dict(zip(models, want, strict=True))
    assert apart(["/a/b/model", "/c/b/model"])["/c/b/model"] == "c/b/model"


def prompt_and_view():
    from interp.apps.keeping import keep_prompt, keep_view

    keep_prompt("The dog", "some-model", "here")
    keep_view("atlas", "Neuron atlas")


def test_a_prompt_and_a_view_are_kept_from_their_page(dog_model):
    shown = asked(prompt_and_view, dog_model, word=" dog", run="x", edits=["a", "b"])
    for number in range(2):
        [b for b in shown.button if b.label == "Keep it"][number].click().run()
        assert not shown.exception
    prompt, view = open_collection("my collection").entries
    assert (prompt.text, prompt.title, prompt.model) == ("The dog", "The dog", "some-model")
    assert (view.address, view.title) == ("/atlas?word=+dog&run=x&edits=a&edits=b", "Neuron atlas")
    kept = asked(kept_page, dog_model)
    assert "/atlas?word=+dog&run=x&edits=a&edits=b" in said(kept)


def test_a_collection_is_compared_across_sites(dog_model):
    for source in ("1.down.17", "1.up.4"):
        keep("a", source, str(dog_model))
    keep_directions("a", a_set(dog_model, "0.mlp_post", n=1))
    shown = asked(kept_page, dog_model, name="a", view="Compare")
    text = said(shown)
    assert "lie in two spaces" in text
    assert "composition" in text
    figure = json.loads(shown.get("plotly_chart")[0].proto.spec)
    assert len(figure["data"][0]["y"]) == 3
    assert shown.dataframe[0].value["name"].tolist() == ["1.down.17", "1.up.4"]


def test_a_comparison_is_shown_and_reproduced_whatever_its_directions_are_called(
    dog_model, store, capsys
):
    for source, title in (("1.down.17", "direction"), ("1.up.4", "bytes"), ("1.up.5", "bytes")):
        keep("a", source, str(dog_model), title=title)
    shown = asked(kept_page, dog_model, name="a", view="Compare")
    assert "bytes (bytes-2)" in said(shown)
    figure = json.loads(shown.get("plotly_chart")[0].proto.spec)
    ticks = figure["layout"]["xaxis"]["ticktext"]
    assert len(set(ticks)) == 3
    command, call = codes(shown)[-2:]
    assert main([*shlex.split(command)[1:], "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["results"]
    assert len(found) == 3
    names: dict[str, object] = {}
    before, _, last = call.rpartition("\n")
    exec(before, names)
    rows = eval(last, names)
    assert found == rows.to_dict("records")


def test_a_collection_too_large_for_a_map_says_what_is_left_out(dog_model, monkeypatch):
    assert kept_pairs.MOST == 40
    for module in (kept_pairs, kept_compare, of_collection):
        monkeypatch.setattr(module, "MOST", 3)
    for n in range(5):
        keep("large", f"1.down.{n}", str(dog_model))
    shown = asked(kept_page, dog_model, name="large", view="Compare")
    assert "Only the first 3 of 5 directions." in said(shown)
    assert shown.multiselect[0].placeholder == "the first 3"
    chosen = asked(
        kept_page, dog_model, name="large", view="Compare", directions="1.down.3,1.down.4"
    )
    assert "Only the first" not in said(chosen)
    assert "1.down.4" in said(chosen)
    assert "Only the first 3 of 5 directions." in report_of_collection("large")


def test_read_vectors_are_not_called_a_step(dog_model):
    for name, says in (("1.up.3", "whose unembedding is most like"), ("1.down.3", "that a step")):
        shown = asked(direction_page, dog_model, direction=name, view="tokens")
        assert says in said(shown)


def test_an_empty_store_says_how_to_begin_and_a_damaged_collection_what_is_wrong(store, dog_model):
    shown = asked(kept_page, dog_model)
    assert "interp keep add animals 29.down.808" in codes(shown)[0]
    keep_prompt("a", "hello", title="<b>[x](http://evil)</b>")
    keep_view("a", "/atlas?word=dog", "dogs")
    shown = asked(kept_page, dog_model)
    assert "hello" in [each.value for each in shown.text]
    assert not any("[x](http" in each.value for each in shown.subheader)
    (store / "collections" / "a" / "collection.json").write_text('{"schema": 1, "entries": 3}')
    shown = asked(kept_page, dog_model)
    assert "'entries' of" in shown.error[0].value.replace("\\", "")


def test_entries_are_taken_out_and_collections_renamed_and_removed(dog_model):
    keep_prompt("a", "one")
    keep_prompt("a", "two")
    shown = asked(kept_page, dog_model, name="a")
    next(b for b in shown.button if b.label == "Take it out").click().run()
    assert [entry.text for entry in open_collection("a").entries] == ["two"]
    files = asked(kept_page, dog_model, name="a", view="Files")
    files.text_input[0].set_value("b")
    next(b for b in files.button if b.label == "Rename").click().run()
    assert not files.exception
    assert open_collection("b").entries[0].text == "two"


def test_sets_are_named_by_what_they_are(store, dog_model):
    run = stored(store, a_set(dog_model, "0.mlp_out"), "directions/deep", model="a/b/some-model")
    names = stored_sets(Store())
    assert list(names) == [f"run:{run.name}"]
    name = names[f"run:{run.name}"]
    assert name.startswith("some.study · deep · 0.mlp_out · some-model · 01-01")
    shown = asked(directions_page, dog_model)
    assert f"run:{run.name}" in codes(shown)[0]
    assert "2 directions, 32 numbers each" in said(shown)


def test_neurons_by_name_are_of_the_model_that_is_chosen(dog_model):
    params = {"set": "neurons by name", "neurons": "1.down.17,1.down.4"}
    shown = asked(directions_page, dog_model, **params)
    assert shown.dataframe[0].value["name"].tolist() == ["1.down.17", "1.down.4"]
    both = asked(
        directions_page, dog_model, **params, view="Against another set",
        **{"other set": "neurons by name", "other neurons": "1.down.3"},
    )  # fmt: skip
    command = f"interp directions compare 1.down.17,1.down.4 1.down.3 --model {dog_model}"
    assert any(command in line for line in codes(both))


def test_latents_of_an_sae_are_chosen_by_number(dog_model, tmp_path, monkeypatch):
    inner = StandardSAE(StandardSAEConfig(d_in=32, d_sae=40))
    inner.cfg.metadata.hook_name = "blocks.0.hook_resid_post"
    inner.cfg.metadata.model_name = str(dog_model)
    inner.save_model(tmp_path / "own" / "sae")
    for module in ("interp.apps.sets", "interp.directions.sets"):
        monkeypatch.setattr(f"{module}.FOLDER", tmp_path / "own")
    params = {"set": "latents of an SAE", "sae": "shipped:sae", "latents": "3,39"}
    shown = asked(directions_page, dog_model, **params)
    assert "2 directions, 32 numbers each" in said(shown)
    assert any("interp directions decode sae:shipped:sae:3,39" in line for line in codes(shown))
    wrong = asked(directions_page, dog_model, **{**params, "latents": "../x"})
    assert "are no numbers of latents" in wrong.error[0].value


def test_a_chip_shows_blanks_and_runs_nothing():
    assert chip("token", " dog") == ":gray-badge[␣dog]"
    assert "](http" not in chip("latent", "x](http://evil) [y")
    assert "<script>" not in chip_html("neuron", "<script>alert(1)</script>")
    assert "␣dog" in chip_html("token", " dog")
    assert "secret" not in chip("model", "/home/secret/some-model")
    assert len(chip("vector", "x" * 500)) < 100

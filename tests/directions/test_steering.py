"""Edits by text, and both sides of what a model says."""

import json
import math

import pandas as pd
import pytest
import torch

from interp.cli import main
from interp.directions import Directions
from interp.directions.acts import Act, edits_of, feeding, one_direction, parse_act
from interp.directions.provenance import Provenance
from interp.directions.steering import answer_text, compared, next_tokens, turn
from interp.errors import UserError
from interp.model import edits
from interp.model.batch import Sampling
from interp.model.site import Site
from interp.model.subject import open_subject
from interp.model.weights import open_weights

from ..latents.planted import write_sae


@pytest.fixture(scope="module")
def subject(dog_model):
    return open_subject(dog_model)


@pytest.fixture(scope="module")
def sae(dog_model, tmp_path_factory):
    """Its latent 7 writes 'dog'."""
    return write_sae(tmp_path_factory.mktemp("sae") / "sae", dog_model)


@pytest.fixture(scope="module")
def pair(dog_model, tmp_path_factory):
    """A folder of two directions."""
    vectors = torch.randn(2, 32, generator=torch.Generator().manual_seed(3))
    folder = tmp_path_factory.mktemp("directions") / "pair"
    about = Provenance.of("test", open_weights(str(dog_model)))
    Directions(Site("resid_post", 0), vectors, pd.DataFrame({"name": ["a", "b"]}), about).save(
        folder
    )
    return folder


@pytest.mark.parametrize(
    "text",
    [
        "hold 29.down.808=40",
        "add kept:mine:first=-2.5",
        "hold 29.down.808=0.123456789",
        "add kept:mine=-1234567.25",
        "add kept:mine=0.30000000000000004",
        "clamp-latent sae:x:3=1e-300",
        "add /a folder/with=signs:3=8",
        "project-out run:ab12/set:3",
        "steer-latent sae:/a/b:12=5",
        "clamp-latent sae:release:id:12=0",
        "ablate-latent sae:x:0",
        "splice sae:x",
        "splice+error sae:release:id",
    ],
)
def test_an_edit_s_text_is_itself(text):
    assert str(parse_act(text)) == text
    assert parse_act(f"  {text} ") == parse_act(text) or math.isnan(parse_act(text).value)


def test_what_a_text_says():
    assert parse_act("add /a=b:3=8") == Act("add", "/a=b:3", 8.0)
    act = parse_act("clamp-latent sae:release:id:12=0")
    assert (act.sae, act.latent, act.value) == ("release:id", 12, 0.0)
    assert parse_act("splice sae:release:id").sae == "release:id"
    assert not parse_act("add sae:x:3=1").sae, "a direction like any other"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "begins with one of hold, add"),
        ("ablate 1.down.3", "begins with one of hold, add"),
        ("hold 1.down.3", "has no value: write 'hold 1.down.3=8'"),
        ("hold 1.down.3=", "has no value"),
        ("hold 1.down.3=much", "has no value"),
        ("hold 1.down.3=inf", "'hold 1.down.3=inf' is not finite"),
        ("hold 1.down.3=nan", "is not finite"),
        ("hold =3", "says not of what"),
        ("hold dog=3", "'dog' names no neuron"),
        ("project-out", "says not of what"),
        ("steer-latent x:3=1", "names no SAE: write sae:PLACE:12"),
        ("steer-latent sae:x=1", "names no SAE: write sae:PLACE:12"),
        ("ablate-latent sae:x:dog", "names no latent"),
        ("splice sae:", "names no SAE: write sae:PLACE"),
    ],
)
def test_a_mistake_in_a_text_is_one_line(text, said):
    with pytest.raises(UserError, match=said):
        parse_act(text)


def test_one_direction_of_a_folder(pair, dog_model):
    assert one_direction(f"{pair}:1", str(dog_model)).names == ["b"]
    for source, said in ((f"{pair}:2", "no direction '2'"), (str(pair), "holds 2 directions")):
        with pytest.raises(UserError, match=said):
            one_direction(source, str(dog_model))


def test_the_edits_are_those_of_the_library(subject, pair, sae, dog_model):
    """All together give the logits that the edits made by hand give, in the same order."""
    from interp.saes import open_sae
    from interp.saes.edits import ablate_latent, clamp_latent, splice, steer_latent

    vectors, own, text = Directions.load(pair).vectors, open_sae(sae), subject.prompting
    site = Site("resid_post", 0)
    texts = [
        "hold 1.down.17=3", f"add {pair}:0=2", f"project-out {pair}:1",
        f"steer-latent sae:{sae}:7=2", f"clamp-latent sae:{sae}:3=1", f"ablate-latent sae:{sae}:5",
        f"splice sae:{sae}",
    ]  # fmt: skip
    by_hand = [
        edits.clamp(Site("mlp_post", 1), 17, 3.0), edits.add(site, vectors[0], 2.0),
        edits.project_out(site, vectors[1:]), steer_latent(own, 7, 2.0, text),
        clamp_latent(own, 3, 1.0, text), ablate_latent(own, 5, text), splice(own, text),
    ]  # fmt: skip
    made = edits_of([parse_act(each) for each in texts], subject, str(dog_model))
    batch = subject.tokens("w1 w2 w3")
    for ours, theirs in (*zip(made, by_hand, strict=True), (made, by_hand)):
        logits = []
        for each in (ours, theirs):
            with subject.edited(*(each if isinstance(each, list) else [each])):
                logits.append(subject.logits(batch))
        assert torch.equal(*logits)


def test_what_the_model_lacks_is_said(subject, sae, dog_model):
    for text, said in (
        ("hold 9.down.1=3", "no layer 9|no 9.down.1"),
        ("hold 1.down.9999=3", "no 1.down.9999"),
        (f"ablate-latent sae:{sae}:9999", "no latent 9999"),
        ("splice sae:/nowhere/at-all", "nowhere"),
    ):
        with pytest.raises(UserError, match=said):
            edits_of([parse_act(text)], subject, str(dog_model))


def test_both_sides(subject, dog_model):
    held = edits_of([parse_act("hold 1.down.17=50")], subject, str(dog_model))
    rows = compared(subject, held, ["w1 w2"], chat=False, tokens=5)
    assert rows["side"].tolist() == ["as it is", "edited"]
    batch = subject.tokens("w1 w2")
    assert rows["text"][0] == subject.text(subject.generate(batch, 5)[0])
    assert rows["text"][1] == "dog" * 5
    assert rows["next"][1] == "dog"
    before = subject.logits(batch)[0, -1].double().log_softmax(-1)
    with subject.edited(*held):
        after = subject.logits(batch)[0, -1].double().log_softmax(-1)
    assert rows["kl"].tolist() == pytest.approx(
        [0.0, float(torch.nn.functional.kl_div(after, before, log_target=True, reduction="sum"))]
    )
    assert rows["probability"][1] == pytest.approx(float(after.max().exp()))
    shown = next_tokens(subject, before, after, 3)
    assert shown["token"][0] == "dog"
    assert shown["after"][0] == pytest.approx(float(after.max().exp()))


def test_both_sides_draw_by_the_same_seed(subject):
    how = Sampling(1.5, 0.9, 7)
    rows = compared(subject, [], ["w1 w2"], chat=False, tokens=8, how=how)
    assert rows["text"][0] == rows["text"][1]
    other = compared(subject, [], ["w1 w2"], chat=False, tokens=8, how=how._replace(seed=8))
    assert other["text"][0] != rows["text"][0]


def test_a_conversation_goes_on_from_each_side_s_own_answers(talking_model):
    subject = open_subject(talking_model)
    held = edits_of([parse_act("hold 1.down.17=50")], subject, str(talking_model))
    rows = compared(subject, held, ["w1", "w2"], tokens=3)
    assert rows["turn"].tolist() == [0, 0, 1, 1]
    assert rows["text"][1] == rows["text"][3] == "dog" * 3
    for side, mine in (("as it is", []), ("edited", held)):
        said = rows[rows["side"] == side]["text"].tolist()
        messages = [("user", "w1"), ("assistant", said[0]), ("user", "w2")]
        batch = subject.chat([{"role": role, "content": text} for role, text in messages])
        with subject.edited(*mine):
            assert answer_text(subject, subject.generate(batch, 3)[0].tolist()) == said[1]
    assert rows["kl"].isna().tolist() == [False, False, True, True]


def test_a_text_s_end_is_not_part_of_it(subject, monkeypatch):
    monkeypatch.setattr(subject, "ends", (5,))
    assert answer_text(subject, [3, 4, 5]) == answer_text(subject, [3, 4])
    assert answer_text(subject, []) == ""


def test_no_message_is_empty(subject):
    for prompts, said in (([], "empty"), (["w1", " "], "empty"), (["w1", "w2"], "conversation")):
        with pytest.raises(UserError, match=said):
            turn(subject, prompts, ["w3"], chat=False)


def test_the_command(dog_model, capsys):
    words = ["steer", "hold 1.down.17=50", "project-out 1.down.3", "--prompt", "w1 w2"]
    words += ["--model", str(dog_model), "--no-chat", "--tokens", "4", "--json"]
    assert main(words) == 0
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [row["text"] for row in printed["results"]][1] == "dog" * 4
    assert main([*words[:1], "hold dog=3", *words[3:]]) == 2
    assert "'dog' names no neuron" in capsys.readouterr().err


def test_latents_are_fed_as_their_sae_says(sae):
    acts = [parse_act("hold 1.down.1=2"), parse_act(f"splice sae:{sae}")]
    assert feeding(acts[:1]) == "auto"
    assert feeding(acts) in ("auto", "always", "never")

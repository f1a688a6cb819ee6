"""The study: a planted neuron is found, tables add up, mistakes are one line."""

import numpy as np
import pytest
import torch

from interp.circuits.trace import TraceConfig
from interp.errors import UserError
from interp.model.subject import open_subject
from interp.runs.study import run_or_load

PROMPT = "w3 w4 w5"


@pytest.fixture(scope="module")
def runs(dog_model, tmp_path_factory):
    made = {}

    def run(**settings):
        key = repr(settings)
        if key not in made:
            config = TraceConfig(str(dog_model), prompt=PROMPT, target="dog", **settings)
            made[key] = run_or_load(config, out=tmp_path_factory.mktemp("trace") / "run")
        return made[key]

    return run


def test_the_planted_neuron_is_the_largest_and_says_its_word(runs, dog_model):
    run = runs(against="w9", nodes=30)
    nodes = run.table("nodes")
    own = nodes[nodes["kind"] == "neuron"]
    first = own.loc[own["attribution"].abs().idxmax()]
    assert (first["name"], first["position"], first["token"]) == ("1.down.17", 2, "w5")
    says = first["top"] if first["activation"] > 0 else first["bottom"]
    assert says[0] == "dog"
    subject = open_subject(dog_model)
    logits = subject.logits(torch.tensor([[3, 4, 5]]))[0, -1]
    assert run.metrics["target"] == pytest.approx(float(logits[123] - logits[9]), abs=1e-4)
    (x,) = subject.capture(torch.tensor([[3, 4, 5]]), ["1.mlp_post"]).values()
    assert first["activation"] == pytest.approx(float(x[0, 2, 17]), abs=1e-5)


@pytest.mark.parametrize("rule", ["half", "gate"])
def test_edges_into_a_node_add_up_to_what_it_has(runs, rule):
    run = runs(against="w9", nodes=30, rule=rule)
    nodes, edges = run.table("nodes"), run.table("edges")
    into = edges.groupby("target")["weight"].sum()
    rest = nodes[nodes["kind"] == "remainder"].iloc[0]
    out = edges[edges["source"] == rest["node"]]["weight"].sum()
    assert rest["attribution"] == pytest.approx(out, abs=1e-6)
    flows = nodes[nodes["kind"].isin(["neuron", "head", "target"])].set_index("node")
    assert set(into.index) == set(flows.index)
    assert np.allclose(into[flows.index], flows["attribution"], atol=1e-4)
    assert abs(run.table("cuts")["error"]).max() < 1e-4
    totals = run.table("totals").set_index("kind")
    assert float(totals.loc["embedding", "attribution"]) + float(
        totals.loc["bias", "attribution"].sum() if "bias" in totals.index else 0
    ) == pytest.approx(run.metrics["target"], abs=1e-4)


def test_an_effect_is_the_row_times_the_change(runs, dog_model):
    """To first order: of the planted neuron, which the target reads directly, through the norm's
    frozen scale."""
    run = runs(against="w9", nodes=40, counterfactual="w3 w4 w30")
    nodes = run.table("nodes")
    subject = open_subject(dog_model)
    (own,) = subject.capture(torch.tensor([[3, 4, 5]]), ["1.mlp_post"]).values()
    (other,) = subject.capture(torch.tensor([[3, 4, 30]]), ["1.mlp_post"]).values()
    row = nodes[nodes["name"] == "1.down.17"].iloc[0]
    change = float(own[0, 2, 17] - other[0, 2, 17])
    assert row["effect"] == pytest.approx(row["attribution"] / row["activation"] * change, rel=1e-3)
    tokens = run.table("tokens")
    assert tokens["counterfactual"].tolist() == ["w3", "w4", "w30"]
    # where the two prompts are the same so far, nothing changes
    assert (nodes.query("position < 2 and kind != 'remainder'")["effect"].abs() < 1e-4).all()


def test_by_default_the_likeliest_token_against_the_mean(dog_model, tmp_path):
    run = run_or_load(TraceConfig(str(dog_model), prompt=PROMPT, nodes=5), out=tmp_path / "run")
    logits = open_subject(dog_model).logits(torch.tensor([[3, 4, 5]]))[0, -1].double()
    assert run.metrics["target"] == pytest.approx(float(logits.max() - logits.mean()), abs=1e-3)
    name = run.table("nodes").query("kind == 'target'")["name"].item()
    assert name.endswith(" - mean")


def test_an_observable_names_tokens_and_prompts(dog_model, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        'observable: {"dog": 1, "w9": -1}\npair: ["w3 w4 w5", "w3 w4 w30"]\n'
        'templates: ["w1 [WORD]"]\nwords: [["w1"], ["w2"]]\n'
    )
    config = TraceConfig(str(dog_model), observable=str(file), nodes=30)
    run = run_or_load(config, out=tmp_path / "run")
    assert run.table("tokens")["counterfactual"].tolist() == ["w3", "w4", "w30"]
    assert run.table("nodes")["effect"].notna().any()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"prompt": ""}, "the prompt is empty"),
        ({"prompt": "  "}, "the prompt is empty"),
        ({"target": "dog w3"}, "'dog w3' is 2 tokens"),
        ({"target": "dog", "against": "dog"}, "are the same token"),
        ({"counterfactual": "w3 w4"}, r"the prompts have 3 and 2 tokens"),
        ({"counterfactual": PROMPT}, "are the same: change one"),
        ({"share": 0.0}, "--share must be above 0"),
        ({"nodes": 0}, "--nodes must be at least 1"),
        ({"observable": "verb-number", "target": "dog"}, "leave out --target"),
        ({"lens": "nothing"}, "is no lens"),
        ({"saes": ("/nowhere",)}, "nowhere"),
    ],
)
def test_mistakes_are_one_line_before_the_model_is_opened(
    dog_model, tmp_path, settings, words, monkeypatch
):
    monkeypatch.setattr("interp.model.subject.open_subject", None)
    config = TraceConfig(str(dog_model), **{"prompt": PROMPT, **settings})
    with pytest.raises(UserError, match=words):
        run_or_load(config, out=tmp_path / "run")

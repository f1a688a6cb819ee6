"""Which names mean one model, and which only look alike."""

import pytest
import yaml
from sae_lens.loading.pretrained_saes_directory import files
from transformer_lens.supported_models import MODEL_ALIASES

from interp.model import catalog
from interp.model.aliases import owner_and_name, public_name, same_model
from interp.model.files import home


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("gemma-2-2b", "google/gemma-2-2b"),
        ("gpt2-small", "openai-community/gpt2"),
        ("gpt2", "gpt2-small"),
        ("google/gemma-2-2b@main", "google/gemma-2-2b"),
        ("pythia-70m-deduped", "EleutherAI/pythia-70m-deduped"),
        ("mistral-7b", "mistralai/Mistral-7B-v0.1"),
        ("meta-llama/Meta-Llama-3.1-8B", "Llama-3.1-8B"),
        ("smollm2-135m", "HuggingFaceTB/SmolLM2-135M-Instruct"),
        ("smollm2-135m", "SmolLM2-135M-Instruct"),
        ("gemma3-270m", "google/gemma-3-270m"),
        ("othello-gpt", str(catalog.SHIPPED["othello-gpt"])),
        ("othello-gpt", "/models/Othello_GPT"),
        ("my-model", "/somewhere/my-model"),
    ],
)
def test_names_of_one_model(one, other):
    assert same_model(one, other)
    assert same_model(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("gemma-2-2b", "gemma-2-2b-it"),
        ("google/gemma-2-2b", "google/gemma-2-2b-it"),
        ("pythia-70m", "pythia-70m-deduped"),
        ("EleutherAI/pythia-70m", "EleutherAI/pythia-70m@step1000"),
        ("smollm2-135m", "HuggingFaceTB/SmolLM2-135M"),
        ("smollm2-135m", "SmolLM2-135M"),
        ("gemma3-270m", "google/gemma-3-270m-it"),
        ("gpt2-small", "gpt2-medium"),
        ("gemma-2-2b", "somebody/gemma-2-2b"),
        ("othello-gpt", "org/othello-gpt-small"),
        ("smollm2-135m", ""),
        ("/models/copy", "othello-gpt"),
    ],
)
def test_names_that_look_alike(one, other):
    assert not same_model(one, other)
    assert not same_model(other, one)


def test_short_names_are_those_of_transformer_lens():
    """Of every model that SAEs are published for, each of its TransformerLens aliases."""
    text = files("sae_lens").joinpath("pretrained_saes.yaml").read_text()
    released = {release["model"] for release in yaml.load(text, yaml.CSafeLoader).values()}
    official = {alias: name for name, aliases in MODEL_ALIASES.items() for alias in aliases}
    pairs = [(name, official[name]) for name in released if name in official]
    assert len(pairs) > 8
    for short, name in pairs:
        assert same_model(short, name), (short, name)
    different = {official.get(name, name) for name in released}
    keys = {owner_and_name(name) for name in different}
    assert len(keys) == len({name.split("/")[-1].lower() for name in different})


def test_folders_of_the_catalog_and_of_the_hub(own_home):
    made = home() / "models" / f"smollm2-135m.{catalog.CONVERTER}"
    assert same_model(str(made), "smollm2-135m")
    cache = own_home / "models--google--gemma-2-2b"
    for revision, sha in (("main", "aaa"), ("v2", "bbb")):
        (cache / "snapshots" / sha).mkdir(parents=True)
        (cache / "refs").mkdir(exist_ok=True)
        (cache / "refs" / revision).write_text(sha)
    assert same_model(str(cache / "snapshots" / "aaa"), "gemma-2-2b")
    assert owner_and_name(str(cache / "snapshots" / "bbb")) == ("google", "gemma-2-2b@v2")


def test_names_that_were_added(own_home, monkeypatch):
    sources = {"mine": "google/gemma-2-2b", "tuned": str(own_home / "tuned")}
    monkeypatch.setattr("interp.model.aliases.added", lambda: sources)
    assert same_model("mine", "gemma-2-2b")
    assert not same_model("tuned", "gemma-2-2b")
    assert public_name("mine") == "google/gemma-2-2b"
    assert public_name("tuned") == "tuned"
    assert public_name("smollm2-135m") == "smollm2-135m"
    assert public_name(str(own_home)) == own_home.name, "no place on this machine"
    assert same_model(public_name("me/gemma-2-2b"), "me/gemma-2-2b")

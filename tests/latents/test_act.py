"""The commands that act by latents: what they print is what the edits give."""

import json

import pytest
import torch

from interp.cli import main
from interp.model.subject import open_subject
from interp.saes import open_sae
from interp.saes.edits import ablate_latent, clamp_latent, splice, steer_latent

from .planted import DOG, write_sae

PROMPT = "w1 w2 w3"


@pytest.fixture
def source(dog_model, tmp_path, own_home):
    return write_sae(tmp_path / "sae", dog_model)


@pytest.fixture
def asked(capsys):
    def ask(*words):
        code = main(["saes", *map(str, words), "--prompt", PROMPT, "--no-chat", "--json"])
        printed = capsys.readouterr()
        return code, json.loads(printed.out or "null"), printed.err

    return ask


def test_commands_give_what_the_edits_give(source, dog_model, asked):
    subject, sae = open_subject(str(dog_model)), open_sae(source)
    special, batch = subject.prompting, subject.tokens(PROMPT)
    plain = subject.logits(batch)[0, -1].double().softmax(-1)
    for words, edits in (
        (
            ["steer", source, 7, "--by", 3, 90],
            [steer_latent(sae, 7, 3, special), steer_latent(sae, 7, 90, special)],
        ),
        (["clamp", source, 7, 12, "--to", 90], [clamp_latent(sae, [7, 12], 90, special)]),
        (["ablate", source, 7], [ablate_latent(sae, 7, special)]),
        (
            ["splice", source, "--held", 7, 90],
            [splice(sae, special, True, {7: 90}), splice(sae, special, False, {7: 90})],
        ),
    ):
        code, answer, _ = asked(*words)
        assert code == 0
        first, *rows = answer["results"]
        assert (first["edit"], first["kl"]) == ("as it is", 0)
        assert first["probability"] == first["before"] == pytest.approx(float(plain.max()))
        for row, edit in zip(rows, edits, strict=True):
            with subject.edited(edit):
                after = subject.logits(batch)[0, -1].double().softmax(-1)
                text = subject.text(subject.generate(batch, 24)[0])
            best = int(after.argmax())
            assert row["text"] == text
            assert row["probability"] == pytest.approx(float(after[best]), abs=1e-9)
            assert row["before"] == pytest.approx(float(plain[best]), abs=1e-9)
            assert row["kl"] == pytest.approx(
                float((plain * (plain / after).log()).sum()), rel=1e-6
            )
            if "90" in map(str, words) and edit is edits[-1]:
                assert row["next"] == "dog"
                assert best == DOG


@pytest.mark.parametrize("words", [("steer", "--by"), ("clamp", "--to")])
def test_values_that_are_nearly_the_same_are_two(source, asked, words):
    """As many decimals name each as tell them apart."""
    _, answer, _ = asked(words[0], source, 7, words[1], 1.23456789, 1.2345678)
    assert [row["edit"] for row in answer["results"]] == ["as it is", "1.23456789", "1.2345678"]


def test_the_activation_is_that_of_the_edited_stream(source, dog_model, asked):
    subject, sae = open_subject(str(dog_model)), open_sae(source)
    _, answer, _ = asked("steer", source, 7, "--by", 3)
    ids = subject.tokens(PROMPT)
    x = subject.capture(ids, ["1.resid_post"]).popitem()[1][0, -1]
    want = [float(torch.relu(sae.encode(y)[7])) for y in (x, x + 3 * sae.W_dec[7])]
    assert [row["encoded"] for row in answer["results"]] == pytest.approx(want)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["steer", "SAE", 40], "no latent 40: it has 0..39"),
        (["clamp", "SAE", 7, 7], "the same"),
        (["steer", "SAE", 7, "--by", "nan"], "finite"),
        (["splice", "SAE", "--held", 7, "inf"], "finite"),
        (["splice", "SAE", "--held", 7, 1, 7, 2], "twice"),
        (["ablate", "SAE", 7, "--tokens", 0], "--tokens must be at least 1"),
        (["ablate", "SAE", 7, "--model", "othello-gpt"], "not of othello-gpt"),
    ],
)
def test_mistakes_are_one_line(source, asked, words, says):
    code, _, error = asked(*(source if word == "SAE" else word for word in words))
    assert code == 2
    assert says in error
    assert len(error.strip().splitlines()) == 1

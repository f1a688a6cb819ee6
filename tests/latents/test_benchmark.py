"""SAEBench's tests on planted features (SynthSAEBench's idea): the dictionary and the labels are
known, so a perfect SAE, one with planted absorption and a rotated one have known scores."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from sklearn.linear_model import LogisticRegression

from interp.latents.absorption import MIN_F1, absorbed, letter_rows, split_latents, truth, truths_of
from interp.latents.perturbation import Perturbed, perturbation_rows
from interp.latents.pooled import Pooled
from interp.latents.probing import ClassProbes, chosen, probing_rows

CLASSES, NOISE, D = 4, 36, 40
"""Classes with a feature each, other features, and the width they lie in, at right angles."""


def dictionary(seed=0):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((D, D)))[0]


def planted(each=60, seed=1):
    """Texts [4 each]: their own class's feature and twenty others; (x, codes, labels)."""
    draw = np.random.default_rng(seed)
    label = np.repeat(np.arange(CLASSES), each)
    z = np.zeros((len(label), CLASSES + NOISE), np.float32)
    z[np.arange(len(label)), label] = draw.uniform(1, 2, len(label))
    for row in z:
        row[CLASSES + draw.choice(NOISE, 20, replace=False)] = draw.uniform(0.2, 2, 20)
    return (z @ dictionary()).astype(np.float32), z, label


@pytest.fixture(scope="module")
def probes():
    x, _, label = planted()
    unit = np.arange(len(label)) // 2
    return ClassProbes(Pooled(torch.from_numpy(x), label, unit, unit % 3 == 2))


def rotated(x):
    """The codes of a dictionary that has nothing to do with the features: dense, both signs."""
    return (x @ dictionary(5).T).astype(np.float32)


def test_items_are_balanced_and_their_files_apart(probes):
    texts = probes.texts
    for label in range(CLASSES):
        for tested in (False, True):
            items = texts.items(label, tested)
            assert items.positive.sum() * 2 == len(items.at) == len(set(items.at))
            assert (texts.label[items.at] == label).tolist() == items.positive.tolist()
            others = np.bincount(texts.label[items.at[~items.positive]], minlength=CLASSES)
            assert others.max() - np.delete(others, label).min() <= 2
            assert (texts.tested[items.at] == tested).all()


def test_the_chosen_latents_and_their_probe_are_the_references(probes):
    _, z, _ = planted()
    trained, tested = probes.trained[1], probes.tested[1]
    y = trained.positive
    difference = z[trained.at][y].mean(0) - z[trained.at][~y].mean(0)
    np.testing.assert_allclose(trained.difference(csr_array(z)), difference, atol=1e-6)
    columns = np.argsort(-np.abs(difference))[:2]
    assert chosen(difference, 2).tolist() == columns.tolist()
    for fit in (z[:, columns], probes.texts.x.numpy()):
        theirs = LogisticRegression(max_iter=1000).fit(fit[trained.at], y)
        accuracy = theirs.score(fit[tested.at], tested.positive)
        found = probes.accuracies(csr_array(z)) if fit.shape[1] == 2 else probes.whole()
        ours = {(k, label): interval.value for k, label, interval in found}
        assert ours[(2 if fit.shape[1] == 2 else 0), 1] == pytest.approx(accuracy)


def test_a_perfect_sae_is_read_from_one_latent_and_a_rotated_one_is_not(probes):
    x, z, _ = planted()
    codes = {"perfect": csr_array(z), "rotated": csr_array(rotated(x))}
    names = [f"c{i}" for i in range(CLASSES)]
    rows = list(probing_rows(probes, codes, names, "file"))
    mean = {(r["sae"], r["k"]): r for r in rows if not r["class"]}
    assert mean["perfect", 1]["accuracy"] == mean["", 0]["accuracy"] == 1
    assert (mean["perfect", 1]["accuracy_low"], mean["perfect", 1]["accuracy_high"]) == (1, 1)
    for features in ("rotated", ""):
        assert 0.5 < mean[features, 1]["accuracy"] < 0.8
        assert mean[features, 1]["accuracy_high"] < 0.9
    assert {r["unit"] for r in rows} == {"file"}
    of_class = [r["accuracy"] for r in rows if r["sae"] == "rotated" and r["k"] == 5 and r["class"]]
    # every class has as many items, so the mean over items is that over classes
    assert mean["rotated", 5]["accuracy"] == pytest.approx(np.mean(of_class))


def test_labels_without_a_feature_are_read_at_chance():
    draw = np.random.default_rng(0)
    x, z, label = planted(150)
    label = draw.permutation(label)
    unit = np.arange(len(label))
    probes = ClassProbes(Pooled(torch.from_numpy(x), label, unit, unit % 3 == 2))
    for k, at, found in probes.accuracies(csr_array(z)):
        if at == -1:
            assert found.low < 0.5 < found.high, k


def test_perturbation_of_a_perfect_sae_blinds_the_own_probe_alone(probes):
    x, z, _ = planted()
    W_dec = torch.from_numpy(dictionary()).float()
    perturbed = Perturbed(probes, csr_array(z), W_dec)
    for label in range(CLASSES):
        assert perturbed.selected(label, 1).tolist() == [label]
    rows = list(perturbation_rows("perfect", perturbed, list("abcd"), "file"))
    one = next(row for row in rows if row["n"] == 1 and not row["class"])
    # without its feature no item is called the class's own: half of the items are right
    assert one["intended"] == pytest.approx(0.5, abs=0.05)
    assert one["unintended"] == pytest.approx(0, abs=0.02)
    assert one["score"] == pytest.approx(one["intended"] - one["unintended"])
    assert one["score_low"] < one["score"] < one["score_high"] or one["score"] == 0.5
    codes = csr_array(rotated(x))
    other = Perturbed(probes, codes, torch.from_numpy(dictionary(5)).float())
    _, found = list(other.scores(1))[-1]
    assert found["score"].value < 0.1


def test_perturbation_is_what_its_definition_says(probes):
    """Each step by hand in numpy, for latents that overlap."""
    x, _, _ = planted()
    z = np.maximum(rotated(x), 0)
    W_dec = dictionary(5).astype(np.float32)
    perturbed = Perturbed(probes, csr_array(z), torch.from_numpy(W_dec))
    clean, after = np.zeros(CLASSES), np.zeros((CLASSES, CLASSES))
    for i in range(CLASSES):
        items = probes.trained[i]
        own, others = z[items.at[items.positive]], z[items.at[~items.positive]]
        coef = probes.probes[i].coef_
        effect = np.maximum(own.mean(0) - others.mean(0), 0) * (W_dec @ (coef[1] - coef[0]))
        latents = np.argsort(-effect)[:5]
        assert perturbed.selected(i, 5).tolist() == latents.tolist()
        changed = x - z[:, latents] @ W_dec[latents]
        for j in range(CLASSES):
            tested = probes.tested[j]
            c, b = probes.probes[j].coef_, probes.probes[j].intercept_
            for values, kept in ((x, clean[j : j + 1]), (changed, after[i, j : j + 1])):
                says = values[tested.at] @ (c[1] - c[0]) + b[1] - b[0] > 0
                kept[:] = (says == tested.positive).mean()
    lost = clean - after
    own = np.diag(lost)
    others = (lost.sum(1) - own) / (CLASSES - 1)
    label, found = list(perturbed.scores(5))[-1]
    assert label == -1
    assert found["intended"].value == pytest.approx(own.mean())
    assert found["unintended"].value == pytest.approx(others.mean())
    assert found["score"].value == pytest.approx((own - others).mean())


def words(share, seed=0, count=900):
    """Three letters with a feature each, and a feature for every ten words. In a planted share of
    the words with 'a' the letter's latent is silent, and the word's own latent has the letter's
    direction in its decoder row as well. Returns (Pooled, codes, W_dec, absorbed words)."""
    draw = np.random.default_rng(seed)
    letters, own = 3, count // 10
    basis = np.linalg.qr(draw.standard_normal((3 + own, 3 + own)))[0]
    label = np.arange(count) % letters
    group = draw.permutation(count) % own
    # a group of words is of one letter
    group = group - group % letters + label
    absorbing = np.arange(0, own, letters)[: round(share * (own // letters))]
    x = 2 * basis[label] + basis[3 + group]
    W_dec = basis.copy()
    W_dec[3 + absorbing] += 2 * basis[0]
    z = np.zeros((count, len(basis)), np.float32)
    taken = np.isin(group, absorbing)
    z[np.arange(count), 3 + group] = 1
    z[~taken, label[~taken]] = 2
    np.testing.assert_allclose(z @ W_dec, x, atol=1e-5)
    tested = draw.permutation(count) < count // 5
    pooled = Pooled(torch.from_numpy(x).float(), label, label, tested)
    return pooled, csr_array(z), torch.from_numpy(W_dec).float(), taken


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5])
def test_a_planted_share_of_absorption_is_found(share):
    pooled, z, W_dec, taken = words(share)
    truths = truths_of(pooled)
    assert list(truths) == ["a", "b", "c"]
    rows = {row["letter"]: row for row in letter_rows("sae", pooled, z, W_dec, truths)}
    held = pooled.tested & (pooled.label == 0) & (truths["a"].score > 0)
    planted_share = taken[held].mean()
    assert abs(planted_share - share) < 0.12  # of the words that happen to be tested
    assert rows["a"]["latents"] == [0]
    assert rows["a"]["words"] == held.sum()
    assert rows["a"]["full"] == rows["a"]["fraction"] == pytest.approx(planted_share)
    assert rows["b"]["fraction"] == rows["c"]["full"] == 0
    assert rows[""]["fraction"] == pytest.approx(planted_share / 3)
    assert (rows["a"]["unit"], rows[""]["unit"]) == ("word", "letter")


def test_partial_absorption_has_the_fraction_of_its_definition():
    p = torch.tensor([1.0, 0, 0])
    W_dec = torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 0, 1], [-1, 0, 0.1], [0.05, 1, 0]])
    x = torch.tensor([[4.0, 0, 0]])
    for values, fraction, full in (
        ([1.0, 3.0, 1, 0, 0], 3 / 4, False),  # 1 by the split latent, 3 by another
        ([0.0, 3.0, 0, 0, 0], 1.0, True),
        ([0.0, 1.5, 0, 0, 0], 0.0, False),  # less than 0.4 of the projection
        ([2.0, 3.0, 0, 0, 0], 2 / 4, False),  # never more than the split latent leaves
        ([4.0, 3.0, 0, 0, 0], 0.0, False),
        ([0.0, 0.0, 9, 0, 60], 0.0, True),  # a cosine of 0.05: too small for the fraction
        ([-1.0, 3.0, 0, 0, 0], 1.0, True),
    ):
        found = absorbed(x, csr_array(np.array([values], np.float32)), W_dec, p, np.array([0]))
        assert found.fraction[0] == pytest.approx(fraction), values
        assert bool(found.full[0]) is full, values
    away = absorbed(-x, csr_array(np.array([[0.0, 3, 0, 0, 0]])), W_dec, p, np.array([0]))
    assert (away.fraction[0], away.full[0]) == (0, False)


def test_split_latents_are_those_that_the_letter_is_split_into():
    draw = np.random.default_rng(0)
    own = np.arange(600) % 4 == 0
    z = (draw.random((600, 30)) < 0.1) * draw.uniform(0.5, 1, (600, 30))
    z[:, :3] = 0
    z[np.flatnonzero(own), draw.permutation(own.sum()) % 3] = 1
    tested = np.arange(600) % 5 == 0
    assert sorted(split_latents(csr_array(z.astype(np.float32)), own, tested)) == [0, 1, 2]


def test_the_truth_is_a_balanced_logistic_regression():
    pooled, *_ = words(0.2)
    own = pooled.label == 1
    x = pooled.x + 1.5 * torch.randn(pooled.x.shape, generator=torch.Generator().manual_seed(1))
    found = truth(x, own, pooled.tested)
    fit = ~pooled.tested
    rarity = (fit & ~own).sum() / (fit & own).sum()
    # sum of losses / n + 1e-4 / 2 |w|^2, in scikit-learn's terms
    theirs = LogisticRegression(
        C=1 / (1e-4 * fit.sum()), class_weight={True: rarity, False: 1}, max_iter=5000, tol=1e-10
    ).fit(x.double().numpy()[fit], own[fit])
    w = theirs.coef_[0] / np.linalg.norm(theirs.coef_[0])
    assert float(found.direction.double().numpy() @ w) > 0.9999
    scores = theirs.decision_function(x.double().numpy())
    assert np.corrcoef(found.score, scores)[0, 1] > 0.9999
    assert np.abs(found.score - scores).max() < 0.02 * np.abs(scores).max()


def test_letters_that_the_model_does_not_know_are_left_out():
    pooled, *_ = words(0.0)
    noise = torch.randn(pooled.x.shape, generator=torch.Generator().manual_seed(0))
    blind = Pooled(noise, pooled.label, pooled.unit, pooled.tested)
    assert truths_of(blind) == {}
    assert all(found.f1 > MIN_F1 for found in truths_of(pooled).values())


def test_items_of_unequal_classes_are_balanced():
    """24 texts of one class and 3 of the other: on noise an accuracy above .5 would be of the
    classes' sizes."""
    label = np.array([0] * 24 + [1] * 3)
    tested = np.arange(27) % 3 == 0
    pooled = Pooled(torch.randn(27, 4), label, np.arange(27), tested)
    for which in (0, 1):
        for part in (False, True):
            items = pooled.items(which, part)
            assert items.positive.sum() * 2 == len(items.at)
            assert set(label[items.at[items.positive]]) == {which}
            assert len(set(items.at.tolist())) == len(items.at)

"""What a subject does, over the backends; `test_families.py` runs over all architectures."""

import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from interp.errors import UserError
from interp.model import edits
from interp.model.batch import Sampling, pick
from interp.model.site import Site, matching
from interp.model.subject import open_subject

BACKENDS = ("native", "bridge", "nnsight")


@pytest.fixture(scope="module")
def opened(model_folder):
    """`opened(model, backend)`, each opened once."""
    made = {}

    def get(model, backend):
        if (model, backend) not in made:
            made[model, backend] = open_subject(model_folder(model), backend, attention="eager")
        return made[model, backend]

    return get


@pytest.fixture
def batch(opened):
    """Rows of unequal length, padded on the left."""
    return opened("llama", "native").pad([[5, 6, 7, 8, 9], [1, 2], [3, 4, 5]])


def close(a, b, mask):
    torch.testing.assert_close(a[mask], b[mask], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("model", ["llama", "gpt2", "gemma2", "gpt_neox"])
@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_same_logits_after_an_edit_at_every_site(model, backend, opened, batch):
    native, other = opened(model, "native"), opened(model, backend)
    plain = native.logits(batch)
    generator = torch.Generator().manual_seed(0)
    for site, activation in native.capture(batch, native.sites).items():
        if site.kind == "attn_pattern":
            continue
        edit = edits.add(site, torch.randn(activation.shape[-1], generator=generator))
        with native.edited(edit), other.edited(edit):
            ours, theirs = native.logits(batch), other.logits(batch)
        close(ours, theirs, batch.mask)
        assert (ours - plain)[batch.mask].abs().max() > 1e-3, f"the edit at {site} did nothing"


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_edit_between_attention_and_mlp_is_what_the_layer_goes_on_with(backend, opened, batch):
    """All backends make `resid_mid` the same way, so that they agree is not enough."""
    subject, mid = opened("llama", backend), Site("resid_mid", 0)
    with subject.edited(edits.clamp(mid, 3, 7.0)):
        found = subject.capture(batch, [mid, "0.mlp_out", "0.resid_post"])
    before, added, after = (x[batch.mask] for x in found.values())
    assert (before[:, 3] == 7).all()
    torch.testing.assert_close(after, before + added, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("model", ["qwen2", "gpt2", "gemma3_text"])
def test_every_kind_of_edit(model, backend, opened, batch):
    subject, site = opened(model, backend), Site("resid_post", 0)
    direction = torch.arange(1.0, 33.0)
    unit = direction / direction.norm()
    before = subject.capture(batch, [site])[site]
    rest = before - (before @ unit)[..., None] * unit

    def after(*made):
        with subject.edited(*made):
            return subject.capture(batch, [site])[site]

    clamped = after(edits.clamp(site, 3, 7.5))
    assert torch.equal(clamped[..., 3][batch.mask], torch.full((10,), 7.5))
    assert torch.equal(clamped[..., 4:], before[..., 4:])
    close(after(edits.add(site, direction, 0.5)), before + 0.5 * direction, batch.mask)
    put = after(edits.set_coordinate(site, direction, 2.0))
    close(put @ unit, torch.full(before.shape[:2], 2.0), batch.mask)
    close(put - (put @ unit)[..., None] * unit, rest, batch.mask)
    close(after(edits.project_out(site, direction)), rest, batch.mask)
    close(after(edits.patch(site, before.flip(0))), before.flip(0), batch.mask)
    last = after(edits.clamp(site, 3, 7.5, where="last"))
    assert torch.equal(last[:, :-1], before[:, :-1])
    assert torch.equal(last[:, -1, 3], torch.full((3,), 7.5))
    mask = torch.zeros_like(batch.mask)
    mask[0, 1] = True
    masked = after(edits.clamp(site, 3, 7.5, where=mask))
    assert masked[0, 1, 3] == 7.5
    assert torch.equal(masked[1:], before[1:])
    each = after(edits.clamp(site, 3, torch.tensor([7.5, -1.0, 0.25]), where=batch.mask))
    for text, value in enumerate((7.5, -1.0, 0.25)):
        assert each[text, :, 3][batch.mask[text]].unique() == value
    assert torch.equal(each[..., 4:], before[..., 4:])
    both = after(edits.clamp(site, 3, 7.5), edits.add(site, direction))
    close(both[..., 3], torch.full(before.shape[:2], 7.5 + 4.0), batch.mask)


def test_a_model_whose_files_lack_a_weight_is_refused(model_folder, tmp_path):
    """transformers fills it with random numbers."""
    folder = tmp_path / "model"
    shutil.copytree(model_folder("llama"), folder)
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.self_attn.q_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="1 of the model's weights are not in its files.*q_proj"):
        open_subject(folder)


def test_directions_that_depend_on_each_other_span_what_they_span():
    generator = torch.Generator().manual_seed(0)
    u, v = torch.randn(2, 8, generator=generator)
    h = torch.randn(1, 3, 8, generator=generator)
    every = torch.ones(1, 3, dtype=torch.bool)
    for rows, same in (([u, 2 * u, -u], [u]), ([u, v, u + v], [u, v])):
        made, want = (edits.project_out(Site("resid_pre", 0), torch.stack(r)) for r in (rows, same))
        torch.testing.assert_close(made(h, every), want(h, every))


class TestPatternEdits:
    """[batch, heads, query, key]: heads are the second axis, an edit's positions the queries."""

    SITE = Site("attn_pattern", 0)

    def test_one_head(self, opened, batch):
        subject = opened("llama", "bridge")
        before = subject.capture(batch, [self.SITE])[self.SITE]
        with subject.edited(edits.clamp(Site("attn_pattern", 0, 2), 1, 0.25)):
            after = subject.capture(batch, [self.SITE])[self.SITE]
        others = [head for head in range(before.shape[1]) if head != 2]
        assert torch.equal(after[:, others], before[:, others])
        assert (after[:, 2, :, 1][batch.mask] == 0.25).all()
        assert torch.equal(after[:, 2, :, 2:], before[:, 2, :, 2:])

    @pytest.mark.parametrize("length", [4, 5])  # 4: as many as heads
    def test_last_query_of_every_head(self, length, opened):
        subject, ids = opened("llama", "bridge"), torch.arange(1, length + 1)
        before = subject.capture(ids, [self.SITE])[self.SITE]
        with subject.edited(edits.patch(self.SITE, torch.zeros_like(before), where="last")):
            after = subject.capture(ids, [self.SITE])[self.SITE]
        assert torch.equal(after[:, :, :-1], before[:, :, :-1])
        assert not after[:, :, -1].any()

    @pytest.mark.parametrize("backend", ["native", "nnsight"])
    def test_refused_where_it_cannot_act(self, backend, opened, batch):
        subject = opened("llama", backend)
        with subject.edited(edits.clamp(self.SITE, 0, 0.0)):
            for use in (subject.logits, lambda b: subject.capture(b, [self.SITE])):
                with pytest.raises(UserError, match="read but not edited by this backend"):
                    use(batch)


@pytest.mark.parametrize("backend", BACKENDS)
def test_restored_bit_for_bit(backend, opened, batch):
    subject = opened("llama", backend)
    before = subject.logits(batch)
    with subject.edited(edits.clamp(Site("mlp_up", 1), 3, 9.0)):
        assert not torch.equal(subject.logits(batch), before)
    assert torch.equal(subject.logits(batch), before)
    broken = edits.add(Site("mlp_up", 1), torch.ones(5))
    with pytest.raises(UserError), subject.edited(broken):
        subject.logits(batch)
    assert torch.equal(subject.logits(batch), before)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_op_edits_change_nothing(backend, opened, batch):
    subject, site = opened("llama", backend), Site("mlp_post", 1)
    before, at = subject.logits(batch), subject.capture(batch, [site])[site]
    for edit in (edits.patch(site, at), edits.add(site, torch.ones(48), 0.0)):
        with subject.edited(edit):
            assert torch.equal(subject.logits(batch), before)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("model", ["llama", "gpt2", "gpt_neox"])
def test_left_padding_changes_no_row(model, backend, opened):
    subject = opened(model, backend)
    rows = [[5, 6, 7, 8, 9], [1, 2], [3, 4, 5]]
    together = subject.logits(subject.pad(rows))
    for row, logits in zip(rows, together, strict=True):
        alone = subject.logits(subject.pad([row]))[0]
        torch.testing.assert_close(logits[-len(row) :], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("model", ["qwen3", "gpt2", "gpt_neo"])
def test_generation_with_a_cache_equals_without(model, backend, opened):
    """Steered at every position, the cached steps must give what whole passes give."""
    subject = opened(model, backend)
    batch = subject.pad([[5, 6, 7, 8], [1, 2]])
    with subject.edited(edits.add(Site("resid_post", 0), torch.ones(32), 0.7)):
        new = subject.generate(batch, 6)
        rows = [r[m].tolist() for r, m in zip(batch.ids, batch.mask, strict=True)]
        for _ in range(6):
            logits = subject.logits(subject.pad(rows))[:, -1]
            rows = [[*row, int(i)] for row, i in zip(rows, logits.argmax(-1), strict=True)]
    assert new.tolist() == [row[-6:] for row in rows]


def test_generate_equals_transformers(model_folder, opened):
    hf = AutoModelForCausalLM.from_pretrained(model_folder("mistral"))
    subject = opened("mistral", "native")
    batch = subject.pad([[5, 6, 7, 8], [1, 2]])
    want = hf.generate(
        batch.ids, attention_mask=batch.mask.long(), max_new_tokens=5, do_sample=False,
        pad_token_id=0, eos_token_id=None,
    )  # fmt: skip
    assert torch.equal(subject.generate(batch, 5), want[:, 4:])


def test_sampling_follows_the_seed(opened):
    subject = opened("llama", "native")
    draw = [subject.generate(subject.pad([[1, 2]]), 8, 1.0, seed) for seed in (0, 0, 1)]
    assert torch.equal(draw[0], draw[1])
    assert not torch.equal(draw[0], draw[2])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_stream_is_what_generate_gives(backend, opened):
    subject = opened("llama", backend)
    batch = subject.pad([[5, 6, 7, 8], [1, 2]])
    with subject.edited(edits.add(Site("resid_post", 0), torch.ones(32), 0.7)):
        for temperature, seed in ((0.0, 0), (1.0, 3)):
            steps = subject.stream(batch, 6, Sampling(temperature, seed=seed))
            rows = torch.stack([step.ids for step in steps], 1)
            assert torch.equal(rows, subject.generate(batch, 6, temperature, seed))
    assert not subject.edits


@pytest.mark.parametrize("backend", BACKENDS)
def test_edits_act_at_the_same_positions_with_and_without_a_cache(backend, opened):
    """Whole passes with a mask that was made by hand give each token's logits."""
    subject = opened("llama", backend)
    prompt, n = [5, 6, 7, 8], 4
    vector = torch.randn(32, generator=torch.Generator().manual_seed(0))
    some = torch.tensor([[True, False, True, False]])
    whole = edits.add(Site("resid_post", 0), vector, 3.0)
    cases = {
        "all": (whole, lambda at, token: True),
        "last": (replace(whole, where="last"), lambda at, token: at >= n - 1),
        "a mask": (replace(whole, where=some), lambda at, token: at in (0, 2)),
        "not some tokens": (replace(whole, not_ids=(6,)), lambda at, token: token != 6),
        "not the first": (replace(whole, not_first=2), lambda at, token: at >= 2),
    }
    for name, (edit, acts) in cases.items():
        text = list(prompt)
        with subject.edited(edit):
            steps = list(subject.stream(torch.tensor(prompt), 4))
        for step in steps:
            mask = torch.tensor([[acts(at, token) for at, token in enumerate(text)]])
            with subject.edited(replace(whole, where=mask)):
                want = subject.logits(torch.tensor(text))[:, -1]
            torch.testing.assert_close(step.logits, want, atol=2e-5, rtol=1e-5, msg=name)
            text.append(int(step.ids))


def test_two_streams_side_by_side_do_not_see_each_other_s_edits(opened):
    subject = opened("llama", "native")
    batch, edit = subject.pad([[1, 2]]), edits.add(Site("resid_post", 0), torch.ones(32), 9.0)
    want = [subject.generate(batch, 6)]
    with subject.edited(edit):
        want.append(subject.generate(batch, 6))
    assert not torch.equal(*want)
    sides, new = [((), subject.stream(batch, 6)), ((edit,), subject.stream(batch, 6))], ([], [])
    for _ in range(6):
        for (mine, steps), ids in zip(sides, new, strict=True):
            with subject.edited(*mine):
                ids.append(next(steps).ids)
    assert [torch.stack(ids, 1).tolist() for ids in new] == [ids.tolist() for ids in want]


def test_a_stream_s_mistakes_are_said_before_its_first_token(opened):
    subject = opened("llama", "native")
    batch = subject.pad([[1, 2]])
    for how in (Sampling(-1.0), Sampling(float("nan")), Sampling(1.0, 0.0), Sampling(1.0, 1.5)):
        with pytest.raises(UserError, match="temperature|top-p"):
            subject.stream(batch, 2, how)
    with pytest.raises(UserError, match="more than the model's context"):
        subject.stream(batch, 10**6)


def test_the_nucleus_is_the_fewest_tokens_that_have_the_share():
    chances = torch.tensor([[0.15, 0.5, 0.05, 0.3]])
    for top_p, inside in ((0.4, {1}), (0.5, {1}), (0.6, {1, 3}), (0.95, {0, 1, 3}), (1.0, None)):
        generator = torch.Generator().manual_seed(0)
        drawn = [int(pick(chances.log(), Sampling(1.0, top_p), generator)) for _ in range(400)]
        assert set(drawn) == (inside or {0, 1, 2, 3}), top_p
    for near in (1e-40, 1e-300, 1e-6):  # a temperature near 0 draws the likeliest
        assert int(pick(chances.log(), Sampling(near), torch.Generator().manual_seed(0))) == 1
    shares = [drawn.count(token) / 400 for token in range(4)]
    assert shares == pytest.approx(chances[0].tolist(), abs=0.08)


def test_capture_stops_after_the_last_site(opened, batch):
    subject = opened("llama", "native")
    ran = []
    model = subject._backend.model
    handle = model.model.layers[1].register_forward_hook(lambda *_: ran.append(1))
    subject.capture(batch, ["0.mlp_up"])
    assert not ran
    subject.capture(batch, ["1.resid_post"])
    handle.remove()
    assert len(ran) == 1


def test_heads(opened, batch):
    subject = opened("llama", "native")
    whole = subject.capture(batch, ["1.head_z", "1.head_v", "1.attn_pattern"])
    assert whole[Site("head_z", 1)].shape == (3, 5, 4, 8)
    assert whole[Site("head_v", 1)].shape == (3, 5, 2, 8)
    one = subject.capture(batch, ["1.head_z.3", "1.attn_pattern.2"])
    assert torch.equal(one[Site("head_z", 1, 3)], whole[Site("head_z", 1)][..., 3, :])
    assert torch.equal(one[Site("attn_pattern", 1, 2)], whole[Site("attn_pattern", 1)][:, 2])
    with subject.edited(edits.add(Site("head_z", 1, 3), torch.ones(8))):
        moved = subject.capture(batch, ["1.head_z"])[Site("head_z", 1)]
    assert torch.equal(moved[..., :3, :], whole[Site("head_z", 1)][..., :3, :])
    close(moved[..., 3, :], whole[Site("head_z", 1)][..., 3, :] + 1, batch.mask)
    with pytest.raises(UserError, match="no head 4 at 1.head_z: it has 4"):
        subject.capture(batch, ["1.head_z.4"])


def test_a_model_in_memory_stays_as_it_is(model_folder):
    hf = AutoModelForCausalLM.from_pretrained(model_folder("llama"))
    names = set(hf.state_dict())
    for backend in BACKENDS:
        assert open_subject(hf, backend).parity < 1e-5
    assert set(hf.state_dict()) == names


class TestMistakes:
    def test_unknown_sites_list_what_there_is(self, opened, batch):
        subject = opened("gpt2", "native")
        for site in ("9.resid_post", "0.mlp_gate", "*.mlp_gate"):
            with pytest.raises(UserError, match=r"layers 0\.\.1 of resid_pre, .* final_norm_in"):
                subject.capture(batch, [site])
        with pytest.raises(UserError, match="no site kind 'resid_pots'"):
            subject.capture(batch, ["0.resid_pots"])
        with pytest.raises(UserError, match="no site 'mlp_gate'|needs a layer"):
            subject.capture(batch, ["mlp_gate"])
        with (
            pytest.raises(UserError, match="no site '7.mlp_up'"),
            subject.edited(edits.clamp(Site("mlp_up", 7), 0, 1.0)),
        ):
            pass

    @pytest.mark.parametrize("text", ["", "resid", "6", "6.resid_post.1", "x.mlp_up", "logits.3"])
    def test_bad_site_names(self, text):
        with pytest.raises(UserError):
            Site.parse(text)

    def test_edits_that_do_not_fit(self, opened, batch):
        subject, site = opened("llama", "native"), Site("resid_post", 0)
        wrong = {
            "does not fit 0.resid_post": edits.add(site, torch.ones(5)),
            "no coordinate 32": edits.clamp(site, 32, 1.0),
            "no head 9 at 0.head_z": edits.clamp(Site("head_z", 0, 9), 0, 1.0),
            "2 values do not fit 3 texts": edits.clamp(site, 0, torch.ones(2)),
            "the patch at": edits.patch(site, torch.ones(1, 1, 32)),
            "the mask of the edit": edits.clamp(site, 0, 1.0, torch.ones(1, 1, dtype=torch.bool)),
        }
        for says, edit in wrong.items():
            with pytest.raises(UserError, match=says), subject.edited(edit):
                subject.logits(batch)
        for direction in (torch.zeros(32), torch.full((32,), float("nan"))):
            with pytest.raises(UserError, match="finite and not zero"):
                edits.set_coordinate(site, direction, 1.0)

    def test_empty_prompts_and_no_tokenizer(self, opened):
        subject = opened("llama", "native")
        with pytest.raises(UserError, match="an empty prompt"):
            subject.pad([[1], []])
        with pytest.raises(UserError, match="an empty prompt"):
            subject.logits(torch.zeros(0, dtype=torch.long))
        with pytest.raises(UserError, match=r"ids must be in 0\.\.210"):
            subject.pad([[211]])
        for ids in ([0, 211], [-1]):
            with pytest.raises(UserError, match=r"ids must be in 0\.\.210"):
                subject.logits(torch.tensor(ids))
        for use in (subject.logits, lambda ids: subject.generate(ids[:60], 5)):
            with pytest.raises(
                UserError, match="65 tokens are more than the model's context of 64"
            ):
                use(torch.ones(65, dtype=torch.long))
        with pytest.raises(UserError, match="has no tokenizer"):
            subject.tokens("dog")

    def test_unknown_backend(self, model_folder):
        with pytest.raises(UserError, match="choose native, bridge or nnsight"):
            open_subject(model_folder("llama"), "jax")


def test_globs_come_in_forward_order():
    sites = [Site(kind, layer) for layer in range(2) for kind in ("resid_pre", "mlp_up")]
    assert [str(s) for s in matching(["*.mlp_up", "1.resid_pre"], sites)] == [
        "0.mlp_up", "1.resid_pre", "1.mlp_up",
    ]  # fmt: skip
    assert all(
        Site.parse(str(site)) == site for site in [*sites, Site("head_z", 3, 1), Site("logits")]
    )


def test_what_is_said_goes_through_the_model_once(opened, batch):
    """The next token's logits and the new tokens, to the bit those of two calls."""
    subject, passes = opened("llama", "native"), []
    hook = subject.network.register_forward_pre_hook(lambda *_: passes.append(1))
    with subject.edited(edits.clamp(Site("mlp_post", 1), 3, 5.0)):
        logits, new = subject.said(batch, 4)
        hook.remove()
        assert torch.equal(logits, subject.logits(batch)[:, -1])
        assert torch.equal(new, subject.generate(batch, 4))
    assert len(passes) == new.shape[1]

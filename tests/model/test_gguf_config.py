"""What a GGUF file says beside its tensors: it becomes config.json, or a line that names it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from transformers import AutoConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.phi3.modeling_phi3 import Phi3RotaryEmbedding

from interp.errors import UserError
from interp.model.gguf.config import read_config, read_generation
from interp.model.gguf.file import GgufFile

from .gguf_files import metadata_only

THETA, HEAD = 500000.0, 128
PLAIN = THETA ** (-np.arange(0, HEAD, 2) / HEAD)
LLAMA = {"embedding_length": 4 * HEAD, "rope__freq_base": THETA, "rope__dimension_count": HEAD}


def frequencies(file: GgufFile) -> tuple[torch.Tensor, float]:
    """What transformers turns by, and what it multiplies cosine and sine by."""
    rotary = LlamaRotaryEmbedding(AutoConfig.for_model(**read_config(file)))
    return rotary.inv_freq.double(), rotary.attention_scaling


def llama3(factor: float, low: float = 1.0, high: float = 4.0, original: int = 8192) -> np.ndarray:
    """The tensor of factors, as llama.cpp's converter makes it of Llama 3.1's config."""
    factors = []
    for frequency in PLAIN:
        wavelength = 2 * math.pi / frequency
        if wavelength < original / high:
            factors.append(1.0)
        elif wavelength > original / low:
            factors.append(factor)
        else:
            smooth = (original / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(factors, np.float32)


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_llama_3s_factors_divide_the_frequencies(factor):
    file = metadata_only("llama", {"rope_freqs.weight": llama3(factor)}, **LLAMA)
    turned, strength = frequencies(file)
    assert read_config(file)["rope_parameters"]["rope_type"] == "llama3"
    np.testing.assert_allclose(turned, PLAIN / llama3(factor), rtol=1e-5)
    assert strength == 1


def test_factors_that_are_not_llama_3s_are_refused():
    for factors in (llama3(8.0, low=2.0), llama3(8.0, original=4096), llama3(8.0)[:60]):
        file = metadata_only("llama", {"rope_freqs.weight": factors}, **LLAMA)
        with pytest.raises(UserError, match=r"RoPE factors \('rope_freqs'\) that are not"):
            read_config(file)
    ones = {"rope_freqs.weight": np.ones(HEAD // 2, np.float32)}
    np.testing.assert_allclose(frequencies(metadata_only("llama", ones, **LLAMA))[0], PLAIN, 1e-6)


def test_linear_scaling_divides_every_frequency():
    scaled = {"rope__scaling__type": "linear", "rope__scaling__factor": 4.0}
    turned, strength = frequencies(metadata_only("llama", **LLAMA, **scaled))
    np.testing.assert_allclose(turned, PLAIN / 4, rtol=1e-6)
    assert strength == 1


@pytest.mark.parametrize("strength", [1.0, 0.7])
def test_yarn_is_llama_cpps(strength):
    """Its ramp between the dimensions that turn 32 times and once in the original context."""
    scaled = {
        "rope__scaling__type": "yarn",
        "rope__scaling__factor": 4.0,
        "rope__scaling__original_context_length": 32768,
        "rope__scaling__attn_factor": strength,
    }
    turned, scale = frequencies(metadata_only("llama", **LLAMA, **scaled))

    def dimension(turns: float) -> float:
        return HEAD * math.log(32768 / (turns * 2 * math.pi)) / (2 * math.log(THETA))

    start, end = math.floor(dimension(32)), math.ceil(dimension(1))
    kept = 1 - np.clip((np.arange(HEAD // 2) - start) / (end - start), 0, 1)
    np.testing.assert_allclose(turned, PLAIN / 4 * (1 - kept) + PLAIN * kept, rtol=1e-5)
    assert scale == pytest.approx(strength * (1 + 0.1 * math.log(4)))


def test_longrope_has_factors_for_short_and_long_texts():
    factors = {f"rope_factors_{w}.weight": np.linspace(1, 9 if w == "long" else 2, 8).astype("f4")
               for w in ("long", "short")}  # fmt: skip
    said = {"rope__scaling__original_context_length": 4096, "rope__dimension_count": 16}
    fields = read_config(metadata_only("phi3", factors, **said))
    rope = fields["rope_parameters"]
    np.testing.assert_allclose(rope["long_factor"], factors["rope_factors_long.weight"])
    assert rope["attention_factor"] == pytest.approx(math.sqrt(1 + math.log(32) / math.log(4096)))
    rotary = Phi3RotaryEmbedding(AutoConfig.for_model(**fields))
    short = 10000.0 ** (-np.arange(0, 16, 2) / 16) / factors["rope_factors_short.weight"]
    np.testing.assert_allclose(rotary.inv_freq, short, rtol=1e-5)
    assert rotary.attention_scaling == pytest.approx(rope["attention_factor"])
    with pytest.raises(UserError, match="without their original context length"):
        read_config(metadata_only("phi3", factors, rope__dimension_count=16))


def test_gemma_3_scales_only_the_layers_without_a_window():
    said = {"rope__scaling__type": "linear", "rope__scaling__factor": 8.0,
            "rope__freq_base": 1e6, "attention__sliding_window": 512}  # fmt: skip
    rope = read_config(metadata_only("gemma3", **said))["rope_parameters"]
    assert rope["full_attention"] == {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6}
    assert rope["sliding_attention"] == {"rope_type": "default", "rope_theta": 10000.0}


@pytest.mark.parametrize(("layers", "scale"), [(26, 256), (46, 144)])
def test_the_widest_gemma_2_scales_queries_by_its_width(layers, scale):
    said = {"embedding_length": 4608, "attention__head_count": 32, "attention__key_length": 256,
            "attention__value_length": 256, "block_count": layers}  # fmt: skip
    file = metadata_only("gemma2", {"token_embd.weight": np.zeros((70, 4608), "f4")}, **said)
    assert read_config(file)["query_pre_attn_scalar"] == scale


def test_the_pattern_of_windows():
    said = {"block_count": 4, "attention__sliding_window": 8}
    sliding, full = "sliding_attention", "full_attention"
    for pattern, layers in (
        (2, [sliding, full, sliding, full]),
        ([True, True, False, True], [sliding, sliding, full, sliding]),
    ):
        file = metadata_only("gemma3", **said, attention__sliding_window_pattern=pattern)
        assert read_config(file)["layer_types"] == layers
    fields = read_config(metadata_only("gemma2", **said, final_logit_softcapping=20.0))
    assert (fields["sliding_window"], fields["final_logit_softcapping"]) == (8, 20.0)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("attention__scale", 0.1),
        ("logit_scale", 0.0625),
        ("attn_logit_softcapping", 50.0),
        ("final_logit_softcapping", 30.0),
        ("attention__sliding_window", 4096),
        ("expert_count", 8),
        ("expert_weights_scale", 2.5),
        ("residual_scale", 0.22),
        ("embedding_scale", 12.0),
        ("attention__clamp_kqv", 8.0),
        ("attention__max_alibi_bias", 8.0),
        ("rope__scale_linear", 4.0),
        ("rope__scaling__yarn_log_multiplier", 0.1),
        ("something_new", "x"),
    ],
)
def test_a_key_that_nothing_reads_is_named(key, value):
    """It may change the numbers; at 0 it says nothing."""
    with pytest.raises(UserError, match=f"has 'llama.{key.replace('__', '.')}' = .* may change"):
        read_config(metadata_only("llama", **{key: value}))
    if not isinstance(value, str):
        read_config(metadata_only("llama", **{key: type(value)(0)}))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"rope__scaling__type": "dynamic"}, "RoPE scaling 'dynamic'"),
        ({"rope__scaling__attn_factor": 2.0}, "with strength 2"),
        ({"rope__dimension_count": 8}, "turns 8 of a head's 16 dimensions"),
        ({"attention__value_length": 8}, "keys and values of different sizes"),
        ({"attention__causal": False}, "no causal language model"),
        ({"vocab_size": 71}, "70 rows of embeddings for another number of tokens"),
        ({"block_count": None}, "has None as 'llama.block_count'"),
        ({"attention__head_count_kv": [2, 0]}, r"has \[2, 0\] as 'llama.attention.head_count_kv'"),
        ({"attention__layer_norm_rms_epsilon": "x"}, "has 'x' as"),
        ({"attention__layer_norm_rms_epsilon": math.nan}, "has nan as"),
        ({"attention__layer_norm_rms_epsilon": 0.0}, "has None as"),
        ({"rope__freq_base": -5.0}, "has -5.0 as 'llama.rope.freq_base'"),
    ],
)
def test_what_transformers_has_nothing_for_is_refused(keys, message):
    with pytest.raises(UserError, match=message):
        read_config(metadata_only("llama", **keys))


def test_sizes_of_heads_and_ties_come_from_the_file():
    fields = read_config(
        metadata_only("qwen3", attention__key_length=32, attention__value_length=32,
                      attention__head_count_kv=[2, 2])
    )  # fmt: skip
    assert (fields["head_dim"], fields["num_key_value_heads"]) == (32, 2)
    assert fields["tie_word_embeddings"]
    untied = metadata_only("qwen3", {"output.weight": np.zeros((70, 64), np.float32)})
    assert not read_config(untied)["tie_word_embeddings"]


def test_every_end_token_ends_an_answer():
    file = metadata_only("llama")
    for name, number in (("bos", 1), ("eos", 2), ("eot", 9), ("eom", 8)):
        file.metadata[f"tokenizer.ggml.{name}_token_id"] = number
    assert read_generation(file) == {"bos_token_id": 1, "eos_token_id": [2, 9, 8]}
    assert read_config(file)["eos_token_id"] == 2
    file.metadata["tokenizer.ggml.eot_token_id"] = 2
    assert read_generation(file)["eos_token_id"] == [2, 8]


def test_ends_that_no_key_names_are_known_by_their_text():
    """Of control tokens alone: Gemma's </s> is a tag of HTML."""
    file = metadata_only("gemma3")
    texts = ["<pad>", "<eos>", "<bos>", "<end_of_turn>", "</s>", "<|im_end|>", "<start_of_turn>"]
    file.metadata["tokenizer.ggml.tokens"] = texts
    file.metadata["tokenizer.ggml.token_type"] = [3, 3, 3, 3, 4, 1, 3]
    file.metadata["tokenizer.ggml.eos_token_id"] = 1
    assert read_generation(file)["eos_token_id"] == [1, 3]
    file.metadata["tokenizer.ggml.eot_token_id"] = 3
    assert read_generation(file)["eos_token_id"] == [1, 3]
    del file.metadata["tokenizer.ggml.token_type"]
    assert read_generation(file)["eos_token_id"] == [1, 3]

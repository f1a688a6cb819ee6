"""What opens a model's files: each takes a command as a list of words."""

from __future__ import annotations

from pathlib import Path


def subject(arguments: list[str]) -> int:
    """A model as a subject; a text or ids through it, a conversation where it has a template."""
    from interp.model.subject import open_subject
    from interp.model.vocabulary import has_chat_template

    opened = open_subject(arguments[0])
    if len(arguments) == 1:
        batch = opened.pad([[1, 2, 3]])
    elif has_chat_template(Path(arguments[0])):
        batch = opened.chat([{"role": "user", "content": arguments[1]}])
    else:
        batch = opened.tokens(arguments[1])
    new = opened.generate(batch, 2)
    print(opened.spec, opened.text(new[0]) if len(arguments) > 1 else new)
    return 0


def text(arguments: list[str]) -> int:
    """What a model's tokenizer makes of a text, as strings and as ids; no weights are read."""
    from interp.model.prompting import Prompting
    from interp.model.tokenizer_files import load_tokenizer
    from interp.model.vocabulary import has_chat_template, token_strings, without_string

    folder, words = Path(arguments[0]), arguments[1]
    print(len(token_strings(folder, 211)), len(without_string(folder, 211)))
    prompting = Prompting(load_tokenizer(folder))
    ids = prompting.ids(words)
    print(prompting.text(ids), prompting.special, prompting.record())
    if has_chat_template(folder):
        print(prompting.chat_text([{"role": "user", "content": words}]))
    return 0


def gguf(arguments: list[str]) -> int:
    """A GGUF file converted, and what comes of it looked at."""
    from interp.model.convert import convert
    from interp.model.weights import Weights

    out = Path("converted")
    out.mkdir()
    convert(Path(arguments[0]), out)
    print(Weights(out).neurons("down", 1).sum())
    return 0


def adapter(arguments: list[str]) -> int:
    """An adapter merged into its base."""
    from interp.model.prepare import prepare
    from interp.model.prepared import check_adapter
    from interp.model.weights import Weights

    base, folder = map(Path, arguments)
    check_adapter(folder)
    prepare(base, folder, Path("merged"))
    print(Weights(Path("merged")).neurons("down", 0).sum())
    return 0


def saes(arguments: list[str]) -> int:
    """All SAEs of a folder, on activations."""
    import torch

    from interp.saes import open_saes
    from interp.saes.open import saes_bos, saes_fingerprint

    print(saes_bos(arguments[0]), saes_fingerprint(arguments[0]))
    opened = open_saes(arguments[0])
    print(opened.site, opened.facts, opened.errors(torch.ones(3, opened.d_in)).active)
    return 0


def ncnn(arguments: list[str]) -> int:
    """A picture through a network of ncnn's."""
    import torch

    from interp.linearscope.ncnn import read_ncnn

    graph, weights = map(Path, arguments)
    print(read_ncnn(graph, weights)(torch.rand(1, 2, 8, 8)).shape)
    return 0

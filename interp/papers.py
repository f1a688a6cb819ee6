"""Where the methods come from: what `interp cite` cites."""

from __future__ import annotations

from typing import NamedTuple


class Paper(NamedTuple):
    """Where a method comes from."""

    key: str
    """BibTeX's."""
    author: str
    title: str
    year: int
    eprint: str = ""
    """Its number on arXiv."""
    booktitle: str = ""
    studies: tuple[str, ...] = ()
    """The studies it is the method of; by default all of its analysis."""


DECODING = Paper(
    "davies2025decoding",
    "Davies, Harry J.",
    "Decoding specialised feature neurons in LLMs with the final projection layer",
    2025,
    eprint="2501.02688",
)
TARS = Paper(
    "davies2024tars",
    "Davies, Harry J. and others",
    "Targeted angular reversal of weights (TARS) for knowledge removal in large language models",
    2024,
    eprint="2412.10257",
    studies=("neurons.tars",),
)
OBSERVABLES = Paper(
    "dunefsky2024observable",
    "Dunefsky, Jacob and Cohan, Arman",
    "Observable propagation: uncovering feature vectors in transformers",
    2024,
    booktitle="International Conference on Machine Learning",
)
KNOB = Paper(
    "minder2025knob",
    "Minder, Julian and Du, Kevin and Stoehr, Niklas and Monea, Giovanni and Wendler, "
    "Chris and West, Robert and Cotterell, Ryan",
    "Controllable context sensitivity and the knob behind it",
    2025,
    eprint="2411.07404",
    booktitle="International Conference on Learning Representations",
)
DARK_MATTER = Paper(
    "engels2024dark",
    "Engels, Joshua and Smith, Logan Riggs and Tegmark, Max",
    "Decomposing the dark matter of sparse autoencoders",
    2024,
    eprint="2410.14670",
)
TOUR = Paper(
    "navarretemichelini2019tour",
    "Navarrete Michelini, Pablo and Liu, Hanwen and Lu, Yunhua and Jiang, Xingqun",
    "A tour of convolutional networks guided by linear interpreters",
    2019,
    booktitle="International Conference on Computer Vision",
)
LAYERS = Paper(
    "du2025layer",
    "Du, Jason and Hong, Kelly and Imran, Alishba and Jahanparast, Erfan and Khfifi, "
    "Mehdi and Qiao, Kaichun",
    "How GPT learns layer by layer",
    2025,
    eprint="2501.07108",
)
TUNED_LENS = Paper(
    "belrose2023tuned",
    "Belrose, Nora and others",
    "Eliciting latent predictions from transformers with the tuned lens",
    2023,
    eprint="2303.08112",
    studies=("lens.tune", "lens.compare"),
)
JACOBIAN_LENS = Paper(
    "gurnee2026verbalizable",
    "Gurnee, Wes and others",
    "Verbalizable representations form a global workspace in language models",
    2026,
    studies=("lens.fit", "lens.compare"),
)
RELP = Paper(
    "rezaeijafari2025relp",
    "Rezaei Jafari, Farnoush and Eberle, Oliver and Khakzar, Ashkan and Nanda, Neel",
    "RelP: Faithful and efficient circuit discovery via relevance patching",
    2025,
    eprint="2508.21258",
    studies=("circuits.trace", "circuits.group", "circuits.truth", "circuits.steer"),
)
NEURON_CIRCUITS = Paper(
    "arora2026circuits",
    "Arora and others",
    "Language model circuits are sparse in the neuron basis",
    2026,
    studies=("circuits.trace", "circuits.group", "circuits.truth"),
)
HEADS = Paper(
    "elhage2021mathematical",
    "Elhage, Nelson and others",
    "A mathematical framework for transformer circuits",
    2021,
    studies=("circuits.head", "circuits.roles"),
)
PATCHING = Paper(
    "zhang2024patching",
    "Zhang, Fred and Nanda, Neel",
    "Towards best practices of activation patching in language models: metrics and methods",
    2024,
    studies=("circuits.patch",),
)
SAEBENCH = Paper(
    "karvonen2025saebench",
    "Karvonen, Adam and Rager, Can and Lin, Johnny and Tigges, Curt and Bloom, Joseph and others",
    "SAEBench: a comprehensive benchmark for sparse autoencoders in language model "
    "interpretability",
    2025,
    eprint="2503.09532",
    studies=("saes.measure",),
)

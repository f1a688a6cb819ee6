"""What the tests share: OthelloGPT's settings, rows of ids, SAEs of known errors, stored runs."""

import pandas as pd
import torch
from safetensors.torch import save_file

from interp.darkmatter.accumulators import SplitErrors
from interp.darkmatter.downstream import ReplacementCosts
from interp.darkmatter.measure import DarkMatterConfig
from interp.darkmatter.regressions import ErrorRegressions
from interp.darkmatter.report import shown_tokens, tables
from interp.darkmatter.synthetic import SyntheticConfig
from interp.data import FOLDER
from interp.model.batch import Batch
from interp.model.site import Site
from interp.runs.making import open_or_make
from interp.runs.study import plan
from interp.saes.open import SaeErrors
from interp.text.contexts import Contexts, Tokens

D = 8
OTHELLO = {
    "model": "othello-gpt",
    "saes": str(FOLDER / "othello" / "saes"),
    "site": "2.resid_post",
    "corpus": str(FOLDER / "othello" / "games.safetensors"),
    "length": 59,
    "tokens": 59 * 120,
    "downstream": 3,
}


def ids(path, rows):
    """Rows of ids, stored."""
    table = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    for number, row in enumerate(rows):
        table[number, : len(row)] = torch.tensor(row)
    save_file({"ids": table}, path)
    return str(path)


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def noise(scale, seed=77):
    generator = torch.Generator().manual_seed(seed)
    return lambda x: scale * torch.randn(x.shape, generator=generator, dtype=torch.float64)


class Planted:
    """Stand-ins for SAEs whose errors are functions of x; the first is the narrowest."""

    site = Site("resid_post", 1)
    d_in = D
    centred = False

    def __init__(self, **errors):
        self.functions = errors
        self.names = tuple(errors)
        self.widths = tuple(range(1, len(errors) + 1))

    def errors(self, x):
        e = torch.stack([error(x) for error in self.functions.values()], 1)
        return SaeErrors(x, e, torch.ones(len(x), len(self.names)))


def gathered(saes, count=30_000, ridge=0.0, per_document=50):
    """All three blocks over Gaussian x with correlated outputs; what they give, and the test's."""
    mix = torch.linalg.qr(gaussian(D, D, seed=9)).Q * torch.linspace(0.5, 2, D)
    regressions = ErrorRegressions(saes, 11, ridge)
    for block in range(3):
        x = gaussian(count, D, seed=block) @ mix + 1.0
        tokens = Tokens(x, torch.arange(count) // per_document, torch.arange(count) % 11)
        errors = saes.errors(x)
        if block == 0:
            regressions.add_fit(tokens, errors)
            regressions.close_fit()
        elif block == 1:
            regressions.add_norms(tokens, regressions.split(errors))
            regressions.close_norms()
        else:
            split = regressions.split(errors)
            regressions.add_test(tokens, split, torch.linspace(0, 1, count))
    return regressions, split


def _tables(saes, downstream):
    """The real tables, over planted errors: no model is run."""
    regressions, split = gathered(saes, 400)
    whole = torch.ones(1, 20, dtype=torch.bool)
    batch, one = Batch(torch.arange(20)[None], whole), torch.tensor([3])
    shown = SplitErrors(*(values[:20] for values in split))
    rows = shown_tokens(
        saes.names, [f" t{i}" for i in range(20)], Contexts(batch, whole, one, one), shown,
        torch.linspace(1, 2, 20)[None],
    )  # fmt: skip
    costs = ReplacementCosts(None, saes.site)
    if downstream:
        settings = torch.tensor([9.0, 8, 7, 9, 8, 7]).double().expand(len(saes.names), 6)
        costs.settings = [settings + document for document in range(4)]
        costs.tokens, costs.documents = [10, 10, 10, 10], [0, 1, 2, 3]
        costs.original, costs.mean = [5.0, 6, 7, 8], [20.0, 21, 22, 23]
    return tables(regressions, costs, [rows])


def stored_runs(store):
    """A run of `darkmatter run` and one of `darkmatter synthetic`, each with two SAEs."""
    half = noise(0.5)
    named = {"w1-k8": lambda x: 0.3 * x + half(x), "w2-k8": lambda x: 0.1 * x + half(x)}
    faults = {f"absent {share:g}, noise 0.05": half for share in (0.0, 0.3)}
    made = []
    for config, saes, downstream in (
        (DarkMatterConfig(**OTHELLO), Planted(**named), 4),
        (SyntheticConfig(**{**OTHELLO, "downstream": 0}), Planted(**faults), 0),
    ):

        def work(out, saes=saes, downstream=downstream):
            for name, rows in _tables(saes, downstream).items():
                out.table(name, rows)
            documents = {"measured": 8, "priced": 2 if downstream else 0}
            out.facts = {"site": "2.resid_post", "names": list(saes.names), "documents": documents}
            return {}

        planned = plan(config)
        folder = store.folder(config.STUDY, planned["key"])
        made.append(open_or_make(folder, planned, config.check, work))
    return made


def value(run, sae, measure):
    table: pd.DataFrame = run.table("measures").set_index(["sae", "measure"])
    return table.loc[sae, measure]["value"]

"""Directions that earlier versions saved are read as they were meant."""

import json

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from interp.directions import Directions
from interp.directions.reading import Product
from interp.errors import UserError
from interp.model.site import Site
from interp.model.weights import Weights


def write_old(folder, site, provenance, index, vectors):
    """The three files as versions before the reading left them."""
    folder.mkdir(parents=True)
    save_file({"vectors": vectors}, folder / "vectors.safetensors")
    pd.DataFrame(index).to_parquet(folder / "index.parquet")
    about = {"site": site, "provenance": provenance}
    (folder / "directions.json").write_text(json.dumps(about))
    return folder


class TestOldLayout:
    vectors = torch.randn(2, 32, generator=torch.Generator().manual_seed(4))
    x = torch.randn(5, 32, generator=torch.Generator().manual_seed(5))

    def test_obsprop(self, tmp_path, dog_model, own_home):
        about = {"from": "obsprop", "model": str(dog_model), "observable": "gender"}
        index = {"name": ["26.2", "26.3"], "constant": [0.5, 1.0]}
        folder = write_old(tmp_path / "d", "1.resid_pre", about, index, self.vectors)
        found = Directions.load(folder)
        eps = Weights(dog_model).spec.eps
        scale = (self.x.double().square().mean(-1, keepdim=True) + eps).sqrt()
        want = self.x.double() / scale @ self.vectors.double().T + torch.tensor([0.5, 1.0])
        torch.testing.assert_close(found.scores(self.x), want, atol=1e-5, rtol=1e-5)
        made = found.provenance
        assert (made.analysis, made.model, made.notes) == (
            *("obsprop", str(dog_model)),
            {"observable": "gender"},
        )

    def test_a_model_that_is_gone(self, tmp_path, own_home, capsys):
        about = {"from": "obsprop", "model": str(tmp_path / "gone")}
        index = {"name": ["26.2", "26.3"], "constant": [0.5, 1.0]}
        folder = write_old(tmp_path / "d", "1.resid_pre", about, index, self.vectors)
        with pytest.raises(UserError, match="no score: an earlier version made them"):
            Directions.load(folder).scores(self.x)

    @pytest.mark.parametrize(
        ("name", "constants"), [("probe-L1", [1.0, 2.0]), ("means-L1", [0, 0])]
    )
    def test_othello(self, name, constants, tmp_path):
        about = {"from": "othello.compare", "model": "othello-gpt"}
        index = {"name": ["own a1", "own b1"], "intercept": [1.0, 2.0]}
        folder = write_old(tmp_path / name, "1.resid_post", about, index, self.vectors)
        want = (self.x @ self.vectors.T).double() + torch.tensor(constants)
        torch.testing.assert_close(Directions.load(folder).scores(self.x), want)

    def test_knob_and_a_model_that_is_no_name(self, tmp_path):
        about = {"analysis": "knob.learn", "model": {"base": "a", "adapter": "b"}}
        index = {"direction": ["learned", "random"], "layer": [20, 20]}
        folder = write_old(tmp_path / "d", "1.resid_post", about, index, self.vectors)
        found = Directions.load(folder)
        assert found.names == ["learned", "random"]
        assert found.reading == Product()
        with pytest.raises(UserError, match="do not name their model"):
            found.model  # noqa: B018

    def test_neurons(self, tmp_path, dog_model, own_home):
        about = {"from": "neurons", "model": str(dog_model)}
        index = {"name": ["1.down.17", "1.down.3"]}
        folder = write_old(tmp_path / "d", "1.mlp_out", about, index, self.vectors)
        found = Directions.load(folder)
        assert (found.read_at, found.index["unit"].tolist()) == (Site("mlp_post", 1), [17, 3])

"""Files of a circuit: the JSON as its readers' schemas have it, and a page that stands alone."""

import json
import re
import resource
from contextlib import contextmanager

import pytest

from interp.circuits.export import OTHER, as_json, cantor
from interp.circuits.html import page
from interp.circuits.picked import opened
from interp.cli import main
from interp.runs.store import open_run

from .planted import EVIL, LAYERS, NODES, TOKENS, VALUE, write_run

METADATA = {
    "slug": str, "scan": str, "transcoder_list": list, "prompt_tokens": list, "prompt": str,
    "node_threshold": float, "schema_version": int, "info": dict, "generation_settings": dict,
    "pruning_settings": dict,
}  # fmt: skip
QPARAMS = {"pinnedIds": list, "supernodes": list, "linkType": str, "clickedId": str, "sg_pos": str}
NODE = {
    "node_id": str, "feature": int, "layer": str, "ctx_idx": int, "feature_type": str,
    "token_prob": float, "is_target_logit": bool, "run_idx": int, "reverse_ctx_idx": int,
    "jsNodeId": str, "clerp": str, "influence": float | None, "activation": float | None,
}  # fmt: skip
LINK = {"source": str, "target": str, "weight": float}


def check(value, fields):
    """Whether an object is exactly of these fields."""
    assert set(value) == set(fields)
    for name, kind in fields.items():
        assert isinstance(value[name], kind), name
        assert type(value[name]) is not bool or kind is bool


def validate(graph):
    """circuit-tracer 0.4.1's pydantic models (`frontend/graph_models.py`), what its front end does
    with them (`util-cg.js`: formatData), and what Neuronpedia's graph-schema.json requires."""
    assert set(graph) == {"metadata", "qParams", "nodes", "links"}
    check(graph["metadata"], METADATA)
    check(graph["qParams"], QPARAMS)
    ids = [node["node_id"] for node in graph["nodes"]]
    assert len(set(ids)) == len(ids)
    features = {f"{n['layer']}_{n['feature']}_{n['ctx_idx']}" for n in graph["nodes"]}
    assert len(features) == len(ids), "the front end's own id"
    for node in graph["nodes"]:
        check(node, NODE)
        assert 0 <= node["ctx_idx"] < len(graph["metadata"]["prompt_tokens"])
        assert re.fullmatch(r"E|\d+", node["layer"])
        assert 0 <= node["feature"] < 2**53, "JavaScript's whole numbers"
        assert node["influence"] is None or 0 < node["influence"] <= 1
        if node["feature_type"] == "logit":  # it splits there, and a label without is an error
            assert re.search(r'"[^"]+".*\(p=[^)]+\)', node["clerp"])
    assert [node["is_target_logit"] for node in graph["nodes"]].count(True) == 1
    for link in graph["links"]:
        check(link, LINK)
        assert {link["source"], link["target"]} <= set(ids)


def data(made):
    """What the page's script draws."""
    return json.loads(re.search(r'id="data">(.*?)</script>', made, re.DOTALL)[1])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return open_run(write_run(tmp_path_factory.mktemp("runs")))


@pytest.fixture(scope="module")
def evil(tmp_path_factory):
    about = {"prompt": EVIL[0], "target": EVIL[4], "model": EVIL[1]}
    return opened(open_run(write_run(tmp_path_factory.mktemp("evil"), EVIL, EVIL, about)))


def test_the_json_is_of_the_schema(run):
    made = as_json(opened(run), "planted")
    validate(made)
    assert made["metadata"]["prompt_tokens"] == TOKENS
    nodes = {node["clerp"].split(" ")[0]: node for node in made["nodes"]}
    neuron = nodes["1.down.17@4"]
    assert (neuron["node_id"], neuron["layer"], neuron["feature_type"]) == ("1_17_4", "1", "neuron")
    assert neuron["feature"] == cantor(1, 17)
    assert neuron["clerp"].split(" · ")[1:] == ["writes  are  were", "against  is"]
    assert nodes["embedding@1"]["node_id"] == "E_1_1"
    assert nodes["2.error@4"]["feature_type"] == "mlp reconstruction error"
    assert nodes["remainder"]["layer"] == "E"
    target = next(node for node in made["nodes"] if node["is_target_logit"])
    assert target["layer"] == str(LAYERS + 1)
    into = [link["weight"] for link in made["links"] if link["target"] == target["node_id"]]
    assert sum(into) == pytest.approx(VALUE)
    assert len(made["nodes"]) == len(NODES)
    last = max(node["influence"] for node in made["nodes"] if node["influence"])
    assert last == 1.0
    strongest = min((n for n in made["nodes"] if n["influence"]), key=lambda n: n["influence"])
    assert strongest["node_id"] == "2_5_4"


@pytest.mark.parametrize(("layer", "index"), [(0, 0), (0, 7), (29, 1535), (40, OTHER + 300)])
def test_a_feature_gives_layer_and_number_back(layer, index):
    """As the front end's `cantorUnpair` does, in floating point."""
    z = float(cantor(layer, index))
    w = int(((8 * z + 1) ** 0.5 - 1) / 2)
    y = z - w * (w + 1) / 2
    assert (w - y, y) == (layer, index)


def test_hostile_texts_are_only_texts(evil):
    validate(json.loads(json.dumps(as_json(evil, "evil"))))
    made = page(evil)
    assert made.count("<script") == 2
    assert made.count("</script>") == 2
    assert "evil.example" in made
    assert "<a href" not in made
    assert "<b>" not in made
    assert "<!--" not in made
    assert not {"\u202e", "\u2028"} & set(made)
    assert data(made)["columns"][4][0] == "\"'&⏎\\u2028<!--"


def test_the_page_fetches_nothing_and_runs_its_own_script_alone(run):
    made = page(opened(run))
    assert len(made) < 30_000
    where = "head at position 4, ␣cabinet, reading from position 1, ␣keys"
    assert where == data(made)["nodes"][6]["place"]
    assert not re.search(r"""(src|href)=|url\(|@import|https?://(?!www\.w3\.org)""", made)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', made)[1]
    assert policy.startswith("default-src 'none'")
    assert "script-src 'sha256-" in policy


def test_the_command_writes_both(run, tmp_path, capsys):
    folder = tmp_path / "new"
    assert main(["circuits", "export", str(run.path), f"{folder}/keys.json", "--index"]) == 0
    assert main(["circuits", "export", str(run.path), f"{folder}/keys.json", "--index"]) == 0
    validate(json.loads((folder / "keys.json").read_text()))
    (listed,) = json.loads((folder / "graph-metadata.json").read_text())["graphs"]
    check(listed, METADATA)
    assert listed["slug"] == "keys"
    capsys.readouterr()
    assert main(["circuits", "export", str(run.path), f"{folder}/keys.html", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["metrics"]["bytes"] == (folder / "keys.html").stat().st_size
    assert told["run"] == str(run.path)


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("keys.pdf", "as .json or .html, not as 'keys.pdf'"),
        ("my keys.json", "letters, digits"),
        ("../x.html", "cannot write"),
    ],
)
def test_mistakes_are_said(run, tmp_path, capsys, file, says):
    (tmp_path / "there").write_text("")
    assert main(["circuits", "export", str(run.path), str(tmp_path / "there" / file)]) == 2
    assert says in capsys.readouterr().err


@contextmanager
def full_disk(size):
    """No file can grow beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("file", ["keys.json", "keys.html"])
def test_a_full_disk_leaves_the_file_that_was_there(run, tmp_path, capsys, file):
    words = ["circuits", "export", str(run.path), str(tmp_path / file)]
    words += ["--index"] if file.endswith("json") else []
    assert main(words) == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with full_disk(1000):
        assert main(words) == 2
    said = capsys.readouterr().err
    assert f"cannot write {tmp_path / file}: " in said
    assert "what was there before is kept" in said
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_link_is_followed(run, tmp_path):
    (tmp_path / "real").mkdir()
    link = tmp_path / "keys.html"
    link.symlink_to(tmp_path / "real" / "new.html")
    assert main(["circuits", "export", str(run.path), str(link)]) == 0
    assert link.is_symlink()
    assert "<svg" in (tmp_path / "real" / "new.html").read_text()


@pytest.fixture(scope="module")
def changed(tmp_path_factory):
    """With a counterfactual: effects that order the nodes otherwise than attributions do."""
    return opened(open_run(write_run(tmp_path_factory.mktemp("changed"), effects=True)))


def test_with_a_counterfactual_the_page_draws_effects(changed):
    made = page(changed)
    said = "' are' - ' is' = 3.375, and 1 at the counterfactual “The key to the cabinet”"
    assert said.replace("'", "&#x27;") in made
    assert "share of the absolute effect" in made
    drawn = data(made)
    nodes = {node["name"]: node for node in drawn["nodes"]}
    error = nodes["2.error@4"]
    assert (error["size"], error["numbers"]["attribution"]) == (0.25, -0.25)
    assert error["numbers"]["effect"] == 0.25
    assert nodes["1.down.17@4"]["before"] == 0, "the largest effect, 1.625 of 8.625"
    assert nodes["2.down.5@4"]["before"] > 0, "the largest attribution"
    names = [node["name"] for node in drawn["nodes"]]
    edges = {(names[s], names[t]): (flow, weight) for s, t, flow, weight in drawn["edges"]}
    assert edges["embedding@4", "target"] == (0.5, 0.25)
    sizes = [abs(edge[2]) for edge in drawn["edges"]]
    assert sizes == sorted(sizes, reverse=True)


def test_influence_is_the_share_among_the_kept_nodes(run, changed):
    """By effect 1.625 of 8.625; by attribution too, the remainder and the target are left out."""
    for graph, first, share in (
        (changed, "1.down.17@4", 1.625 / 8.625),
        (opened(run), "2.down.5@4", 2.875 / opened(run).parts["attribution"].abs().sum()),
    ):
        made = as_json(graph, "a")
        validate(made)
        found = {node["clerp"].split(" ")[0]: node["influence"] for node in made["nodes"]}
        assert found[first] == pytest.approx(share)
        assert found["remainder"] is None
        assert made["metadata"]["pruning_settings"] == {"node_threshold": 0.25}, "what was reached"
    assert as_json(changed, "a")["metadata"]["generation_settings"]["counterfactual"]

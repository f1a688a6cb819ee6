"""What of a graph is shown, where it stands, and what is said of the rest."""

import pandas as pd
import pytest

from interp.circuits.figures import graph_figure, largest
from interp.circuits.picked import TRACE, card, named, opened, picked, strongest
from interp.circuits.placed import WIDEST, placed
from interp.errors import UserError
from interp.plots import ORANGE
from interp.runs.parts import write_table
from interp.runs.store import open_run

from ..manifests import finish_by_hand
from .planted import EVIL, LAYERS, REMAINDER, TARGET, TOKENS, VALUE, tables, write_run


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    return opened(open_run(write_run(tmp_path_factory.mktemp("runs"))))


def test_the_planted_run_conserves():
    made = tables()
    nodes, edges = made["nodes"].set_index("node")["attribution"], made["edges"]
    into, out = (edges.groupby(end)["weight"].sum() for end in ("target", "source"))
    for node in range(2, len(nodes)):
        assert out[node] == pytest.approx(nodes[node])
        assert into.get(node, nodes[node]) == pytest.approx(nodes[node])
    assert into[TARGET] == pytest.approx(VALUE)
    assert nodes[REMAINDER] == 0.5


def test_names(graph):
    names = graph.nodes["label"]
    assert names[8] == "1.down.17@4"
    assert names[6] == "1.head.3@4:1"
    assert names[2] == "embedding@1"
    assert names[[REMAINDER, TARGET]].tolist() == ["remainder", "target"]
    assert graph.number("1.down.17@4") == 8
    assert graph.target == "' are' - ' is'"
    with pytest.raises(UserError, match="no node '1.down.18@4'.*like embedding@1, "):
        graph.number("1.down.18@4")
    with pytest.raises(UserError, match=r"like 1\.down\.17@4"):
        graph.number("1.down.17@3")


def test_two_nodes_of_one_name_are_told_apart(graph):
    twice = pd.concat([graph.nodes, graph.nodes.loc[[8]].assign(node=99)]).drop(columns="label")
    assert named(twice).loc[[8, 99], "label"].tolist() == ["1.down.17@4#8", "1.down.17@4#99"]


def test_the_strongest_are_as_few_as_carry_the_share():
    values = pd.Series([0.5, -3.0, 1.0, 0.5])
    assert list(strongest(values, 0.6)) == [1]
    assert list(strongest(values, 0.61)) == [1, 2]
    assert list(strongest(values, 0.8)) == [1, 2]
    assert list(strongest(values, 0)) == []
    assert list(strongest(values, 1)) == [1, 2, 0, 3]


def test_what_is_hidden_is_counted(graph):
    everything = picked(graph, 1, 1)
    assert everything.sentence == "all nodes and edges of the run"
    assert len(everything.nodes) == len(graph.nodes)
    assert (everything.edges["source"] != REMAINDER).all()
    assert len(everything.edges) == len(graph.edges) - 3
    few = picked(graph, 0.5, 0.4)
    assert few.nodes["label"].tolist()[2:] == ["2.down.5@4", "1.down.17@4", "0.down.7@1"]
    left = graph.parts.drop(index=[8, 9, 4])
    assert few.hidden == len(left)
    assert few.hidden_sum == pytest.approx(left["attribution"].sum())
    assert few.hidden_edges + len(few.edges) == 3
    assert f"{len(left)} weaker nodes" in few.sentence
    with pytest.raises(UserError, match="between 0 and 1, not 1.5"):
        picked(graph, 1.5)


def test_a_card_lists_both_ends(graph):
    shown = card(graph, 9)
    assert shown.node["label"] == "2.down.5@4"
    assert shown.incoming.to_dict("records") == [
        {"name": "1.down.17@4", "weight": 2.75},
        {"name": "remainder", "weight": 0.125},
    ]
    assert shown.outgoing.to_dict("records") == [{"name": "target", "weight": 2.875}]


def test_no_node_hides_another(graph):
    """With a cell of more nodes than fit beside each other, and one far outside of the prompt."""
    one = graph.nodes.loc[[8]]
    more = pd.concat([one.assign(node=100 + i) for i in range(2 * WIDEST + 3)])
    strange = one.assign(node=99, position=77)
    nodes = named(pd.concat([graph.nodes, more, strange]).drop(columns="label"))
    places = placed(nodes, len(TOKENS), LAYERS)
    spots = list(places.at.values())
    assert set(places.at) == set(nodes.index)
    for i, (x, y) in enumerate(spots):
        assert all(abs(x - u) >= 1 or abs(y - v) >= 1 for u, v in spots[:i])
        assert 0 <= x <= places.width
        assert 0 <= y <= places.height
    assert places.at[REMAINDER][0] < places.columns[0][0]
    for node in nodes.index.drop(REMAINDER):
        left, right = places.columns[min(nodes["position"][node], len(TOKENS) - 1)]
        assert left <= places.at[node][0] <= right
    heights = [places.at[node][1] for node in (2, 4, 6, 8, 9, TARGET)]
    assert heights == sorted(heights)
    assert heights == sorted(set(heights)), "the head stands below its layer's neurons"
    assert [name for name, _ in places.rows] == ["emb", "0", "1", "2", "target"]


@pytest.mark.parametrize(
    ("table", "column", "value", "says"),
    [
        ("edges", "target", 77, "edges of nodes that it lacks"),
        ("edges", "weight", float("nan"), "numbers that are not finite"),
        ("nodes", "attribution", float("inf"), "numbers that are not finite"),
        ("nodes", "layer", 10**12, "nodes outside of its model"),
        ("nodes", "position", 5, "nodes outside of its model or its prompt"),
        ("nodes", "kind", "target", "no target, or several"),
        ("nodes", "top", None, "lacks the columns top"),
    ],
)
def test_a_run_whose_tables_do_not_fit_is_refused(tmp_path, table, column, value, says):
    made = tables()
    if value is None:
        made[table] = made[table].drop(columns=column)
    else:
        made[table].loc[3, column] = value
    parts = {
        f"{name}.parquet": lambda path, table=table: write_table(table, path)
        for name, table in made.items()
    }
    about = {"lens": "raw", "rule": "half"}
    folder = finish_by_hand(tmp_path, TRACE, about, made=parts, metrics={"target": 1.0})
    with pytest.raises(UserError, match=says):
        opened(open_run(folder))


def test_another_studys_run_has_no_graph(tmp_path):
    with pytest.raises(UserError, match="a graph is one of circuits.trace"):
        opened(open_run(finish_by_hand(tmp_path, "a.b")))


def test_hostile_tokens_are_kept_as_they_are(tmp_path):
    graph = opened(open_run(write_run(tmp_path, EVIL, EVIL)))
    assert list(graph.tokens) == EVIL
    assert graph.nodes["label"][2] == "embedding@1"


def test_nodes_are_ranked_by_effects_where_there_are_any(graph, tmp_path):
    """Nodes 4 and 7 alone change with the counterfactual; the others rank by attribution."""
    from dataclasses import replace

    assert not graph.has_effects
    nodes = graph.nodes.assign(effect=0.0)
    nodes.loc[[4, 7], "effect"] = [-3.0, 1.0]
    nodes.loc[[REMAINDER, TARGET], "effect"] = float("nan")
    changed = replace(graph, nodes=nodes)
    assert changed.has_effects
    assert list(picked(changed, 1, 1, "effect").nodes.index[2:4]) == [4, 7]
    assert list(picked(changed, 0.7, 1, "effect").nodes.index[2:]) == [4]
    assert picked(changed, 0.7, 1, "effect").hidden_sum == 1.0
    shown = graph_figure(changed, 0.7, 1, "effect")
    neuron = next(trace for trace in shown.data if trace.name == "neuron")
    assert neuron.marker.color == (ORANGE,)
    assert largest(changed, by="effect").data[0].x[-1] == -3.0


def test_what_comes_from_the_remainder_is_of_the_measure_shown(tmp_path):
    """Of the error -0.25 of the attribution, and 0.25 of the effect."""
    changed = opened(open_run(write_run(tmp_path, effects=True)))
    assert changed.by == "effect"
    for by, rest in (("attribution", "-0.25"), ("effect", "+0.25")):
        shown = graph_figure(changed, 1, 1, by)
        error = next(trace for trace in shown.data if trace.name == "error").hovertext[0]
        assert f"{by} from the remainder {rest}" in error
        assert "attribution -0.25" in error
        assert "effect 0.25" in error
    ends = card(changed, 1, "effect").incoming
    assert list(ends.columns) == ["name", "effect", "weight"]
    assert ends["effect"].abs().is_monotonic_decreasing
    assert not card(changed, 1).incoming["effect"].abs().is_monotonic_decreasing


def test_an_observables_prompts_are_said_by_their_tokens(tmp_path):
    about = {"prompt": "", "counterfactual": ""}
    graph = opened(open_run(write_run(tmp_path, config=about, effects=True)))
    assert graph.prompt == "The keys to the cabinet"
    assert graph.said.endswith(", and 1 at the counterfactual “The key to the cabinet”")

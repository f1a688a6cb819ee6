"""Merged nodes: what adds up, what vanishes, and the run that keeps them."""

import numpy as np
import pandas as pd
import pytest

from interp.circuits.groups import GroupConfig, grouped, parsed
from interp.circuits.picked import opened
from interp.cli.circuits import _groups, _largest
from interp.errors import UserError
from interp.runs.store import Store, open_run
from interp.runs.study import run_or_load

from ..figures import figure_names
from .planted import VALUE, tables, write_run

SERIES = {"later": [8, 9], "first": [4, 5]}


@pytest.fixture
def graph(tmp_path):
    return opened(open_run(write_run(tmp_path)))


def flows(edges, node):
    return (
        edges.loc[edges["target"] == node, "weight"].sum(),
        edges.loc[edges["source"] == node, "weight"].sum(),
    )


def test_a_group_conserves():
    """Attribution = edges in from outside + what flows inside; so it was of each node before."""
    made = tables()
    nodes, edges = grouped(made["nodes"], made["edges"], SERIES)
    assert len(nodes) == len(made["nodes"]) - 2
    assert nodes["node"].tolist() == list(range(len(nodes)))
    for row in nodes[~nodes["kind"].isin(["remainder", "embedding", "bias"])].to_dict("records"):
        into, out = flows(edges, row["node"])
        assert into + row["inside"] == pytest.approx(row["attribution"])
        assert out + row["inside"] == pytest.approx(row["attribution"]) or row["kind"] == "target"
    later, first = (nodes[nodes["name"] == name].iloc[0] for name in SERIES)
    assert later["attribution"] == pytest.approx(2.75 + 2.875)
    assert later["inside"] == pytest.approx(2.75), "the one edge 8 -> 9"
    assert first["inside"] == 0
    assert first["attribution"] == pytest.approx(1.5)
    assert later["members"] == ["1.down.17@4", "2.down.5@4"]
    assert later["layer"] == 2, "where its strongest member is"
    target = nodes.index[nodes["kind"] == "target"][0]
    assert flows(edges, target)[0] == pytest.approx(VALUE)
    head = nodes.index[nodes["kind"] == "head"][0]
    between = edges[(edges["source"] == first["node"]) & (edges["target"] == head)]
    assert between["weight"].tolist() == [pytest.approx(1.5)], "2 and -0.5 are one edge now"


def test_what_is_in_no_group_stays_and_the_given_tables_too():
    made = tables()
    before = made["nodes"].copy()
    nodes, edges = grouped(made["nodes"], made["edges"], SERIES)
    pd.testing.assert_frame_equal(made["nodes"], before)
    same = nodes[nodes["kind"] != "group"]
    old = before[~before["node"].isin([4, 5, 8, 9])]
    for column in ("name", "attribution", "layer", "index"):
        assert same[column].tolist() == old[column].tolist()
    assert np.isnan(nodes.loc[nodes["kind"] == "group", "activation"]).all()
    alone, same_edges = grouped(before, made["edges"], {})
    assert alone["attribution"].tolist() == before["attribution"].tolist()
    assert len(same_edges) == len(made["edges"])


def test_groups_of_groups_add_up():
    made = tables()
    twice = grouped(*grouped(made["nodes"], made["edges"], {"a": [8, 9]}), {"b": [4, 8]})
    once = grouped(made["nodes"], made["edges"], {"b": [4, 8, 9]})
    (left, left_edges), (right, right_edges) = twice, once
    for frame in (left, right):
        frame.sort_values("name", inplace=True)
    for name in ("attribution", "inside"):
        assert left[name].tolist() == pytest.approx(right[name].tolist())
    assert sorted(left_edges["weight"]) == pytest.approx(sorted(right_edges["weight"]))
    members = left[left["kind"] == "group"]["members"].iloc[0]
    assert members == ["0.down.7@1", "1.down.17@4", "2.down.5@4"]


@pytest.mark.parametrize(
    ("groups", "says"),
    [
        (["plural"], "is no group: write NAME=NODE,NODE"),
        (["=1.down.17@4"], "is no group"),
        (["a=1.down.17@4,"], "is no group"),
        (["a=9.down.1@1"], "no node '9.down.1@1'"),
        (["a=1.down.17@4", "a=2.down.5@4"], "the name 'a' is taken"),
        (["target=1.down.17@4"], "the name 'target' is taken"),
        (["a=1.down.17@4", "b=1.down.17@4"], "is in 'a' and again in 'b'"),
        (["a=1.down.17@4,1.down.17@4"], "is in 'a' and again in 'a'"),
        (["a=target"], "the target is no part of a circuit"),
    ],
)
def test_mistakes_are_said(graph, groups, says):
    with pytest.raises(UserError, match=says):
        parsed(graph, groups)


def test_the_study_keeps_a_grouped_graph(own_home):
    source = write_run(own_home / "runs", fingerprints={})
    run = run_or_load(GroupConfig(groups=("plural = 1.down.17@4, 2.down.5@4",)))
    assert run.metrics["groups"] == 1
    assert run.metrics["flows inside"] == pytest.approx(2.75)
    assert run.metrics["target"] == VALUE
    graph = opened(run)
    assert graph.about["prompt"] == "The keys to the cabinet"
    assert graph.number("plural") in graph.parts.index
    assert run.manifest["fingerprints"]["circuit"] == source.name
    assert (
        run_or_load(GroupConfig(groups=run.config["groups"], circuit=str(source))).path == run.path
    )
    assert figure_names(run) == {"graph", "layers", "largest", "cuts"}
    again = run_or_load(GroupConfig(("all=plural,0.down.7@1",), circuit=str(run.path)))
    assert opened(again).nodes.query("kind == 'group'")["label"].tolist() == ["all"]
    with pytest.raises(UserError, match="no node 'x'"):
        run_or_load(GroupConfig(("a=x",), circuit=str(source)))
    assert len(Store().runs("circuits.group")) == 2


@pytest.mark.parametrize("by", ["attribution", "effect"])
def test_what_is_printed_names_nodes_as_groups_take_them(own_home, capsys, by):
    source = open_run(write_run(own_home / "runs", effects=by == "effect"))
    _largest(source)
    head, _, *rows = capsys.readouterr().out.strip().splitlines()
    assert head.split() == ["name", "token", "activation", by, "writes", "against"]
    names = [row.split()[0] for row in rows]
    assert "1.head.3@4:1" in names
    run = run_or_load(GroupConfig((f"all={','.join(names)}",), circuit=str(source.path)))
    _groups(run)
    assert capsys.readouterr().out.split()[:4] == ["name", by, "inside", "members"]


def test_without_a_circuit(own_home):
    with pytest.raises(UserError, match="no traced circuit in .*`interp circuits trace`"):
        run_or_load(GroupConfig(("a=b",)))

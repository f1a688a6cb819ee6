"""Conservation on a real model: ten prompts, both rules."""

import pytest
import torch

from interp.circuits.graph import chosen
from interp.circuits.network import open_network
from interp.circuits.target import open_target
from interp.model.subject import open_subject

PROMPTS = [
    ("The keys to the cabinet", " are", " is"),
    ("The dog near the trees", " is", " are"),
    ("My friend Mary is an excellent teacher, and", " she", " he"),
    ("The capital of France is", " Paris", " London"),
    ("The opposite of hot is", " cold", " warm"),
    ("def add(a, b):\n    return a", " +", " -"),
    ("Once upon a time, in a land far away,", " there", " he"),
    ("2 + 2 =", " ", " a"),
    ("To be or not to be, that is the", " question", " answer"),
    ("Water boils at 100 degrees", " Celsius", " Fahrenheit"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
def test_sums_hold_on_ten_prompts(dtype, tolerance):
    subject = open_subject("smollm2-135m", attention="eager", dtype=dtype)
    for prompt, plus, minus in PROMPTS:
        batch, target = subject.tokens(prompt), open_target(subject, plus, minus)
        value = float(target.value(subject.logits(batch)))
        for rule in ("half", "gate"):
            network = open_network(subject, batch, target, rule)
            errors = [abs(cut - value) for cut in network.cuts.values()]
            nodes, _ = chosen(network, network.attributions, 0.8, 40)
            for node, shares, _ in network.flows([n for n in nodes if network.parts[n.part].flows]):
                into = sum(float(each.double().sum()) for each in shares)
                own = float(network.attributions[node.part][node.at])
                errors.append(abs(into - own))
            into = sum(float(each.double().sum()) for each in network.flow_to_target().shares)
            print(prompt[:20], rule, dtype, max(errors), abs(into - value))  # noqa: T201
            assert max(*errors, abs(into - value)) < tolerance

"""Every statistic of a projection in numpy's longdouble (64 bits, powers to 2^16383)."""

import numpy as np
import torch

Stats = dict[str, np.ndarray]


def oracle(x: torch.Tensor, w: torch.Tensor) -> Stats:
    """[n] of each statistic by name, of both sides where a side has it."""
    logits = x.double().cpu().numpy().astype(np.longdouble) @ w.double().cpu().numpy().T
    found = {}
    for side, scores in (("top", logits), ("bottom", -logits)):
        best = scores.max(1, keepdims=True)
        e = np.exp(scores - best)
        p = e / e.sum(1, keepdims=True)
        found[f"{side} logsumexp"] = best[:, 0] + np.log(e.sum(1))
        found[f"{side} entropy"] = -(p * np.log(np.where(p > 0, p, 1))).sum(1)
        found[f"{side} max_prob"] = p.max(1)
    t = logits - logits.mean(1, keepdims=True)
    var = (t**2).mean(1)
    safe = np.where(var > 0, var, 1)
    return {
        **found,
        "mean": logits.mean(1),
        "var": var,
        "skewness": (t**3).mean(1) / safe**1.5,
        "kurtosis": (t**4).mean(1) / safe**2 - 3 * (var > 0),
    }


def flat(projection) -> Stats:
    """What a projection of both sides says, under the same names."""
    names = ("logsumexp", "entropy", "max_prob")
    sides = {
        f"{s} {n}": getattr(getattr(projection, s), n) for s in ("top", "bottom") for n in names
    }
    found = {**sides, **projection.moments._asdict()}
    return {name: value.cpu().double().numpy() for name, value in found.items()}


def check(projection, want: Stats, tolerance: float, rows: slice = slice(None)) -> None:
    """Every statistic within `tolerance` of its size (`errors`)."""
    for name, off in errors(projection, want).items():
        wrong = ~(off <= tolerance)[rows]
        values = flat(projection)[name][rows]
        assert not wrong.any(), (name, off[rows][wrong], values[wrong], want[name][rows][wrong])


def errors(projection, want: Stats) -> Stats:
    """[n] of each statistic: what it is off, over its size or 1, whichever is larger. The size of a
    mean and a variance, which are as small as the logits, is their own and the deviation's."""
    deviation, found = np.sqrt(want["var"]), {}
    for name, values in flat(projection).items():
        size = np.maximum(1, abs(want[name]))
        if name in ("mean", "var"):
            size = deviation**2 if name == "var" else deviation + abs(want["mean"])
        off = abs(values - want[name])
        found[name] = np.where(off == 0, 0, off / np.where(size == 0, np.nan, size))
    return found


def check_scaling(project, tolerance: float, powers: list[int], seed: int) -> None:
    """Statistics of rows times powers of 2, against those of the rows and against the oracle.

    The numbers are small integers, so that every power that float32 holds keeps them exact.
    """
    generator = torch.Generator().manual_seed(seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    x = torch.randint(-7, 8, (3, 12), generator=generator).float().to(device)
    x[:, 0] = 7.0
    w = torch.randint(-31, 32, (70, 12), generator=generator).float().to(device) / 64
    plain = project(x, w)
    for power in powers:
        scaled = (x.double() * 2.0**power).float()
        scaled[1] = x[1]  # a row stays as it is, beside others
        found, want = project(scaled, w), oracle(scaled, w)
        for side in ("top", "bottom"):
            assert torch.equal(getattr(found, side).ids, getattr(plain, side).ids), power
        for name in ("skewness", "kurtosis"):
            assert torch.equal(getattr(found.moments, name), getattr(plain.moments, name)), power
        unit = torch.tensor([power, 0, power], dtype=torch.float64, device=device).exp2()
        assert torch.equal(found.moments.var, plain.moments.var * unit**2), power
        # the last place of a subnormal mean may be rounded twice here
        mean = (plain.moments.mean * unit).float()
        torch.testing.assert_close(found.moments.mean, mean, rtol=0, atol=2.0**-149)
        check(found, {**want, "mean": want["mean"].astype(np.float32)}, tolerance)

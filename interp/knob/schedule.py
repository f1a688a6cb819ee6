"""The learning rate over one epoch, for the adapter and for the subspace."""


def rate_at(step: int, steps: int, warm_up: int) -> float:
    """Share of the highest rate: linear up over `warm_up` steps, then linear down to 0."""
    if step < warm_up:
        return (step + 1) / (warm_up + 1)
    return (steps - step) / max(steps - warm_up, 1)

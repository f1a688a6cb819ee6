"""What people open, and the command that reads it."""

from . import targets_of_models, targets_of_values

TARGETS = [*targets_of_values.TARGETS, *targets_of_models.TARGETS]

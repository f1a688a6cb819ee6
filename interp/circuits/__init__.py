"""Circuits: which neurons and heads made a model say this token."""

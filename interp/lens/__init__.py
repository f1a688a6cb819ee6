"""Lenses: what a vector at some layer says in the model's own vocabulary."""

"""Latents of SAEs: what a corpus says of each, found again by word, text and density, and cards."""

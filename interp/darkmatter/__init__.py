"""The dark matter of SAEs: how much of what they leave unexplained is linear (Engels et al.)."""

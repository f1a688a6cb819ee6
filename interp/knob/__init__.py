"""The context knob: one direction that decides between a prompt's context and prior knowledge.

Source: Minder et al., 'Controllable context sensitivity and the knob behind it'.
"""

"""MLP neurons read through the LM head (Davies, 'Decoding specialised feature neurons in LLMs')."""

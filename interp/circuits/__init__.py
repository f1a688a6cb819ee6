"""Which parts of a model made one token: the graph of a prompt, and whether it is true."""

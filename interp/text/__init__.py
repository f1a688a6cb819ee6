"""What goes into a model: corpora, rows of ids, streams of activations."""

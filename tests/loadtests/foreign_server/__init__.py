"""A server that this project did not write: `transformers serve`, with a model made on the spot."""

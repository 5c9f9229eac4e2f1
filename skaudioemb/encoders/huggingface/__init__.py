"""Audio encoders of transformers, run by transformers' own code."""

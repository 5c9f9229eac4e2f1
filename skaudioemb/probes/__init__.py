"""Classifiers for embeddings; this side knows neither audio nor encoders."""

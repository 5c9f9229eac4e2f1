"""The HEAR 2021 benchmark: scores."""

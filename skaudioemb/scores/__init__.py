"""Scores of predictions: of clips, of events, and of segments."""

"""Training encoders without labels, on the user's own recordings."""

"""The scikit-learn side: one Transformer, or one close family, a module."""

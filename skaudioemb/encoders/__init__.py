"""The torch side: one family of networks a module, no scikit-learn."""

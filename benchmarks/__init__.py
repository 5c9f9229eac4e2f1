"""Ratios against what users would pick instead.

Every module is run as ``python -m benchmarks.<name>`` and prints one table.
"""

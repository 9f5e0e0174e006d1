"""Benchmarks, and the gate that compares two revisions with them."""

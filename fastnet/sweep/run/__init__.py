"""Runs the trials of a sweep: networks, searches, threads, processes and clusters."""

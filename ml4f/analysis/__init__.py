"""Analyses of IR: they read, they change nothing."""

"""Applies a plan to a model in memory."""

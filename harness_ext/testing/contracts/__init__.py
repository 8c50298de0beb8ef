"""Tests for the authors of plugins, to be inherited: ``class TestMine(PrunerContract): pruner = Mine``."""

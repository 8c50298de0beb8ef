"""Classes of tests that authors of plugins inherit, as in ``class TestMine(PrunerContract): pruner = Mine``."""

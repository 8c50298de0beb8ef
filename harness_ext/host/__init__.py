"""The connection to lm-eval: its models and registries."""

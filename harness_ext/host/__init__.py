"""All that knows lm-eval's models and registries."""

"""An oracle for literal occurrences in a text."""

from __future__ import annotations


def occurrences(text, phrase):
    """How often a phrase occurs as whole words in any case, found letter by letter."""
    text, phrase = " ".join(text.lower().split()), " ".join(phrase.lower().split())
    padded = f" {text} "
    found = 0
    for start in range(1, len(padded) - len(phrase)):
        before, after = padded[start - 1], padded[start + len(phrase)]
        whole = not any(neighbour.isalnum() or neighbour == "_" for neighbour in (before, after))
        found += padded.startswith(phrase, start) and whole
    return found

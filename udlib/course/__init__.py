"""The course that stands on the library: recipes, stored results, verdicts, sentences, exercises, explorers."""

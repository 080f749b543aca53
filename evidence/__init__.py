"""The measurements behind docs/results.md: base models, a fair field of methods, its tables."""

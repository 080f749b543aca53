"""The supported Vision Transformers: load, save, name their classes, know their preprocessing."""

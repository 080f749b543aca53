"""Foreground masks: found without annotation, read from other formats, scored, shown."""

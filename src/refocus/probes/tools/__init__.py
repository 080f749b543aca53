"""What probes do to images and models."""

"""The fine-tuning run: its recipe, what it trains on, the loop, the do-no-harm rule."""

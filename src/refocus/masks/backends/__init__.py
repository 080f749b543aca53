"""Other ways than ours to a mask: each module is one, and all give what `protocol` says."""

"""From attention maps and their gradient to the relevance of each patch."""

"""Models x test sets -> one record per image -> numbers with intervals."""

"""The equations: each loss a function, each objective a few lines, one table of them."""

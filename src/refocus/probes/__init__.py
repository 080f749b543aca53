"""Robustness tests of the literature: one table, each a curve before and after."""

"""The whole way in one call: audit, masks, tuning, do no harm, report."""

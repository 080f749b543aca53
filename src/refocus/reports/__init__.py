"""The pages a run ends with: audit, report, explanations."""

"""Pictures, pages, tables and charts: what people look at. Knows nothing of models."""

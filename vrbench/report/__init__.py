"""Statistics, tables and figures: reads records, never trains."""

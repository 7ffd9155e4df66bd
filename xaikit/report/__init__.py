"""Pictures, tables and charts of artefacts."""

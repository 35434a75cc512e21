"""Records to tables, charts and pages."""

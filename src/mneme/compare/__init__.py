"""`mneme compare`: several finished audits side by side: areas by runs, which step did it, the best for the least."""

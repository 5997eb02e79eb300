"""`mneme gate`: whether a finished run passes a policy, and what a pipeline reads of that."""

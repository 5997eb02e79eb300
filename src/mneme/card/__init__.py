"""`mneme card`: what an audit found as a section of a model card, its metadata, and a badge."""

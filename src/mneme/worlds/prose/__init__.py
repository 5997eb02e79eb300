"""World `d`: another text format. One sentence or one short question with its answer a document, invented names in pieces."""

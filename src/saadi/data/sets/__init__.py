"""Public surgical sets as they are published: small declarations, read into the same frames as a table."""

"""The micro tier: one static program of single operations, the same bytes in every arm, in nanoseconds."""

"""Features → values: one file a head."""

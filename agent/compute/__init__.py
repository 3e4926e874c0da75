"""How it is computed, never what."""

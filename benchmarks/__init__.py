"""How fast and how lean each stage is, beside its floor and beside what else one could use."""

"""Step: what the process of every step does: its log, its errors, its end, its files."""

"""Making images: what decides image i, and bringing N of them to disk."""

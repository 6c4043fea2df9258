"""The papers' mathematics in float64 NumPy, written apart from the package."""

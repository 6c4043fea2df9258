"""Numbers about images: what is scored, against what, by which metric, with a card."""

"""Why are the samples noise, tinted or blurred? Measurements of a run, and verdicts."""

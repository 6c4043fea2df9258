"""The train state, the train step and what they are made of."""

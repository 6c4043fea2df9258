"""Numbers that judge a model, streamed over data and devices."""

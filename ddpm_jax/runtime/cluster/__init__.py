"""The other processes of a job: start, meet, watch, stop."""

"""A page to play with: jobs as command lines, their pictures, and the server."""

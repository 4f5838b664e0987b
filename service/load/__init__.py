"""Load on a running server, and what came of it: an ordinary client, which knows of the service only its HTTP API."""

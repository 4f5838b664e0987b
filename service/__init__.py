"""How an artifact is used: images in over HTTP, verdicts out."""

"""How an artifact is made, offline. The service never imports this package."""

"""HTTP routes, a module for each kind of thing. They read the running service and decide nothing."""

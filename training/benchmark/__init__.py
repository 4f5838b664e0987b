"""Categories by methods: the comparison that the source makes, on any folder shaped like MVTec AD."""

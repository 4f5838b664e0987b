"""The registry: artifacts in a folder -> the one that judges each category, loaded, within a memory budget."""

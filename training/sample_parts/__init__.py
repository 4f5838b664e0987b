"""The renderers behind the procedural sample categories: surfaces, light, camera, and what can go wrong."""
